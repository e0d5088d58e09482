"""Command `splatrender render`: from trained splats to images and videos."""

from __future__ import annotations

from typing import Any

import click

from splatrender.cli.loading import loaded
from splatrender.cli.options import BACKENDS, Color, SectionCommand, one_of, option

WHAT = "What to render"
HOW = "Images"
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
    help="Saved iteration to render.  [default: the latest]",
)
@option(
    "--views",
    section=WHAT,
    type=click.Choice(["test", "train", "both", "none"]),
    help="Photos whose views are rendered and compared with.  [default: test, or none with --path]",
)
@option(
    "--path",
    "path",
    section=WHAT,
    default="none",
    metavar="none|orbit|interpolate|FILE.json",
    help="Camera path to render: around the scene, through the cameras of the photos, or the "
    "cameras of a file like cameras.json.",
)
@option(
    "--frames",
    section=WHAT,
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of frames of the path.  [default: 120, or as many as the file has cameras]",
)
@option("--fps", section=HOW, type=float, default=30.0, help="Frames per second of the video.")
@option(
    "-r",
    "--resolution",
    section=HOW,
    type=int,
    help="1, 2, 4 or 8: divisor of the photos' size; a larger number: their width in pixels.  "
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
    help="Also write depth: coloured images, and .npy values with unit and range in depth.json.",
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
    help="Device; auto: an NVIDIA GPU if there is one and the CUDA kernels are built.",
)
@option(
    "--threads",
    section=RUN,
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Number of CPU threads; 0: one for each core.",
)
@option("-q", "--quiet", section=RUN, is_flag=True, help="Print only warnings.")
def render(out: str | None, model: str | None, **options: Any) -> None:
    """Render the splats of MODEL, a folder that training wrote or any 3DGS .ply file.

    If a run stopped before it wrote a .ply file, its checkpoint is rendered.

    By default the views of the test photos are rendered and compared with the photos. Images are
    written to MODEL/test/ours_N/renders and the photos to gt/ beside them, those of a camera path
    and its video to MODEL/paths. A .ply file without cameras is rendered from all sides.

    \b
    Examples:
      render.py output/fox                                   test views, with their PSNR
      render.py output/fox --path orbit                      a video around the scene
      render.py output/fox --path interpolate --frames 300   a flight through the cameras
      render.py room.ply --width 1280 --height 720           a video of any splats
    """
    model = one_of("model", out, model)
    if model is None:
        raise click.UsageError("expected a model folder or a .ply file as MODEL, got none")
    import torch  # here, as --help does not need it

    from splatrender.rendering import RenderJob, render_model

    loaded()
    try:
        render_model(RenderJob(model=model, **options))
    except torch.OutOfMemoryError as error:
        raise click.ClickException(str(error)) from error
