"""`splatrender render`: trained splats in, pictures and videos out."""

from __future__ import annotations

from typing import Any

import click

from splatrender.cli.loading import loaded
from splatrender.cli.options import BACKENDS, Color, SectionCommand, one_of, option

WHAT = "What to render"
HOW = "Pictures"
FILES = "Files"
RUN = "Run"


@click.command(
    cls=SectionCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.argument("out", required=False, metavar="MODEL")
@option(
    "-m",
    "--model",
    "--model_path",
    "model",
    section=FILES,
    metavar="FOLDER",
    help="The same as MODEL.",
)
@option(
    "--iteration",
    section=WHAT,
    type=int,
    help="Which of the saved iterations.  [default: the latest]",
)
@option(
    "--views",
    section=WHAT,
    type=click.Choice(["test", "train", "both", "none"]),
    help="Which photos to render anew and compare with.  [default: test, or none with --path]",
)
@option(
    "--path",
    "path",
    section=WHAT,
    default="none",
    metavar="none|orbit|interpolate|FILE.json",
    help="A camera path to render: around what the photos show, through the places of the "
    "photos, or the cameras of a file like cameras.json.",
)
@option(
    "--frames",
    section=WHAT,
    type=click.IntRange(min=1),
    metavar="N",
    help="Frames of the path.  [default: 120, or as many as the file has cameras]",
)
@option("--fps", section=HOW, type=float, default=30.0, help="Frames a second of the video.")
@option(
    "-r",
    "--resolution",
    section=HOW,
    type=int,
    help="1, 2, 4 or 8 divide the size of photos; another number is a width in pixels.  "
    "[default: as in training]",
)
@option(
    "--width",
    section=HOW,
    type=click.IntRange(min=1),
    metavar="PX",
    help="Width of a path's frames.  [default: as the photos; 960 without cameras]",
)
@option(
    "--height",
    section=HOW,
    type=click.IntRange(min=1),
    metavar="PX",
    help="Height of a path's frames.  [default: in proportion]",
)
@option(
    "--depth",
    section=HOW,
    is_flag=True,
    help="Also write depth: coloured pictures, and .npy values with unit and range in depth.json.",
)
@option(
    "--background",
    section=HOW,
    type=Color(),
    help="Colour behind the splats: black, white, or three numbers from 0 to 1.  "
    "[default: as in training]",
)
@option(
    "--video/--no-video",
    section=HOW,
    default=None,
    help="Write an .mp4 of a path.  [default: if the encoder is installed]",
)
@option(
    "-s",
    "--source",
    section=FILES,
    metavar="FOLDER",
    help="The scene folder, if it has moved since training.",
)
@option(
    "--out",
    "output",
    section=FILES,
    metavar="FOLDER",
    help="Folder to write to.  [default: MODEL; for a .ply, a folder beside it]",
)
@option(
    "--backend",
    section=RUN,
    type=click.Choice(BACKENDS),
    default="auto",
    help="Where to render; auto: on an NVIDIA GPU if the CUDA kernels are built and there is one.",
)
@option(
    "--threads",
    section=RUN,
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="CPU threads; 0: one for each core.",
)
@option("-q", "--quiet", section=RUN, is_flag=True, help="Print nothing but warnings.")
def render(out: str | None, model: str | None, **options: Any) -> None:
    """Render the splats of MODEL, a folder that training wrote or any 3DGS .ply file.

    Of a run that was stopped before it wrote a .ply, the checkpoint is rendered.

    By default the test photos' views are rendered and compared with the photos. Pictures go to
    MODEL/test/ours_N/renders (the photos beside them in gt/), those of a camera path and its video
    to MODEL/paths. A .ply file without cameras is shown from all round.

    \b
    Examples:
      render.py output/fox                                   test views, with their PSNR
      render.py output/fox --path orbit                      a video around the scene
      render.py output/fox --path interpolate --frames 300   a flight along the photos
      render.py room.ply --width 1280 --height 720           a video of someone's splats
    """
    model = one_of("model", out, model)
    if model is None:
        raise click.UsageError("expected a model folder or a .ply file as MODEL, got none")
    import torch  # here, as --help need not load it

    from splatrender.rendering import RenderJob, render_model

    loaded()
    try:
        render_model(RenderJob(model=model, **options))
    except torch.OutOfMemoryError as error:
        raise click.ClickException(str(error)) from error
