"""`splatrender convert`: splats of one format in, of another out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from splatrender.cli.loading import loaded
from splatrender.cli.options import ParamType, SectionCommand, option
from splatrender.errors import InputError
from splatrender.io.home import expand_home

if TYPE_CHECKING:
    from pathlib import Path

    from splatrender.formats import StoredSplats

KEEP = "Splats to keep"
FILES = "Files"
# As in formats.registry, which loads torch.
FORMATS = ["ply", "compressed.ply", "splat", "spz", "spz2", "spz4", "sog", "glb"]


class Box(ParamType):
    """Two opposite corners of a box: six numbers."""

    name = "X0,Y0,Z0,X1,Y1,Z1"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the six numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 6:
            self.fail(f"expected six numbers like -1,-1,-1,1,1,1, got {value!r}", param, ctx)
        return numbers


@click.command(
    cls=SectionCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.argument("source", metavar="A")
@click.argument("target", metavar="B")
@option(
    "--sh-degree",
    section=KEEP,
    type=click.IntRange(0, 3),
    metavar="N",
    help="Highest degree of harmonics, 0 to 3.  [default: as in A, as far as the format goes]",
)
@option(
    "--max-splats",
    section=KEEP,
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the N splats of the largest opacity times area (the product of their two largest "
    "standard deviations).  [default: all]",
)
@option(
    "--crop",
    section=KEEP,
    type=Box(),
    help="Keep splats whose centres are in this box, in the axes of .ply files.  [default: all]",
)
@option(
    "--format",
    "name",
    section=FILES,
    type=click.Choice(FORMATS),
    help="Format of B.  [default: by its ending; .spz is version 3]",
)
def convert(source: str, target: str, name: str | None, **kept: Any) -> None:
    """Convert the splats of A to the format of B.

    A and B end in .ply, .compressed.ply, .splat, .spz, .sog, .glb, or are the meta.json of an
    unpacked SOG. A may be a folder that training wrote, whose latest splats are taken. Axes are
    turned to those of each format. B may replace a file of its own format, and no other; A stays.

    \b
    Examples:
      splatrender convert output/fox fox.spz                   a trained model, small
      splatrender convert fox.spz fox.ply                      for tools that read .ply alone
      splatrender convert room.ply room.sog --sh-degree 1      for the web
      splatrender convert room.ply part.glb --crop -1,-1,-1,1,1,1
    """
    before, after = expand_home("A", source), expand_home("B", target)
    from splatrender.formats.convert import Selection, check_target  # here: --help stays quick
    from splatrender.formats.convert import convert as convert_splats
    from splatrender.formats.registry import FORMATS as KNOWN
    from splatrender.formats.registry import format_of

    loaded()
    if before.exists() and after.exists() and before.samefile(after):
        raise InputError(f"{after}: expected another file than A to write, got the same")
    selection = Selection(**kept)
    check_target(after, format_of(after) if name is None else KNOWN[name])
    click.echo(convert_splats(_opened(before), after, name, selection))


def _opened(path: Path) -> StoredSplats:
    """Read a file of splats, or the latest splats of a model folder."""
    from splatrender.formats import StoredSplats, read_stored
    from splatrender.rendering.trained import open_model

    if not path.is_dir():
        return read_stored(path)
    model = open_model(path)
    return StoredSplats(model.splats, bool(model.config.get("antialiased", False)))
