"""`splatrender train`: a scene folder in, trained splats out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from splatrender.cli.loading import loaded
from splatrender.cli.options import BACKENDS, Color, IterationList, SectionCommand, one_of, option

SCENE = "Scene"
LENGTH = "Length and size"
MODEL = "Model"
OUTPUT = "Output"
RUN = "Run"


@click.command(
    cls=SectionCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.argument("scene", required=False)
@option("-s", "--source", "source", section=SCENE, metavar="FOLDER", help="The same as SCENE.")
@option(
    "-m",
    "--model",
    "--model_path",
    "model",
    section=OUTPUT,
    metavar="FOLDER",
    help="Folder to write to.  [default: output/<name of the scene>]",
)
@option(
    "-r",
    "--resolution",
    section=SCENE,
    type=int,
    default=-1,
    help="1, 2, 4 or 8 divide the size of the photos; another number is their width in pixels; "
    "-1 makes their longer side 800 pixels at most.",
)
@option(
    "--images",
    section=SCENE,
    default="images",
    metavar="NAME",
    help="Folder of the photos within SCENE, for instance images_4.",
)
@option(
    "--masks",
    section=SCENE,
    metavar="NAME",
    help="Folder of masks within SCENE (white: keep), for parts of the photos to leave out.",
)
@option(
    "--eval/--no-eval",
    section=SCENE,
    default=True,
    help="Hold test photos out, to measure quality on views never seen.",
)
@option(
    "--holdout",
    section=SCENE,
    type=int,
    default=8,
    metavar="N",
    help="Every Nth photo is a test photo.",
)
@option(
    "--background",
    section=SCENE,
    type=Color(),
    help="Colour behind the splats: black, white, or three numbers from 0 to 1.  [default: black]",
)
@option(
    "--random-init",
    "--random_init",
    section=SCENE,
    is_flag=True,
    help="Start from random points even if the scene has points of its own.",
)
@option(
    "--iterations",
    section=LENGTH,
    type=int,
    default=7000,
    help="Steps to train; one photo a step. All schedules stretch with it.",
)
@option(
    "--max-splats",
    "--max_splats",
    "--cap_max",
    "max_splats",
    section=LENGTH,
    type=int,
    default=50_000,
    help="Most splats there may be: sets memory, time, and how fine the detail is.",
)
@option(
    "--strategy",
    section=MODEL,
    default="wfr",
    help="How splats are born, moved and removed: wfr, mcmc, adc, adc-absgrad or none.",
)
@option(
    "--price",
    section=MODEL,
    type=float,
    metavar="X",
    help="For --strategy wfr: the squared error of a photo that a splat must be worth. Sets how "
    "many there are, instead of --max-splats alone.",
)
@option(
    "--transport",
    section=MODEL,
    default="adam",
    help="What moves splats: adam, wasserstein (the flow itself, slower to fit), or "
    "wasserstein-scaled.",
)
@option(
    "--sh-degree",
    "--sh_degree",
    section=MODEL,
    type=click.IntRange(0, 3),
    default=3,
    help="How strongly colour may depend on the direction of view: degree of the harmonics.",
)
@option(
    "--antialiased",
    section=MODEL,
    is_flag=True,
    help="Keep splats smaller than a pixel from getting too bright: for views from farther away.",
)
@option(
    "--test-iterations",
    "--test_iterations",
    section=OUTPUT,
    type=IterationList(),
    default=(),
    show_default=False,
    help="When to measure quality on the test photos, besides the end.",
)
@option(
    "--save-iterations",
    "--save_iterations",
    section=OUTPUT,
    type=IterationList(),
    default=(),
    show_default=False,
    help="When to write the splats as a .ply file, besides the end.",
)
@option(
    "--checkpoint-interval",
    "--checkpoint_interval",
    section=OUTPUT,
    type=int,
    default=1000,
    metavar="N",
    help="Save the state every N steps, to resume from; 0: only at the end.",
)
@option(
    "--resume",
    section=RUN,
    type=click.Choice(["auto", "never"]),
    default="auto",
    help="Whether to resume an interrupted run in the output folder.",
)
@option(
    "--overwrite",
    section=RUN,
    is_flag=True,
    help="Start anew, and remove what an earlier run wrote to the output folder once this one has "
    "taken a step. What no run wrote stays.",
)
@option("--seed", section=RUN, type=int, default=0, help="Of all random choices of the run.")
@option(
    "--backend",
    section=RUN,
    type=click.Choice(BACKENDS),
    default="auto",
    help="Where to train; auto: on an NVIDIA GPU if the CUDA kernels are built and there is one.",
)
@option(
    "--threads",
    section=RUN,
    type=int,
    default=0,
    metavar="N",
    help="CPU threads; 0: one for each core.",
)
@option(
    "-q", "--quiet", section=RUN, is_flag=True, help="Print nothing but warnings and the last line."
)
@option(
    "--profile",
    section=RUN,
    is_flag=True,
    help="Print at the end how long each part of a step took.",
)
def train(scene: str | None, source: str | None, model: str | None, **options: Any) -> None:
    """Train splats on the photos of SCENE.

    SCENE is a folder with photos in images/ and their cameras in sparse/, as COLMAP writes
    them. The output folder gets the splats as
    point_cloud/iteration_N/point_cloud.ply, which any viewer for Gaussian splats opens, the test
    renderings with their quality in results.json, and overview.png to look at first. Ctrl-C saves
    and stops, with splats and overview to look at; the same command resumes the run.

    \b
    Examples:
      train.py scenes/still_life -m output/still_life
      train.py scenes/still_life -m output/still_life -r 4 --iterations 2000     a quick look
    """
    scene = one_of("scene", scene, source)
    if scene is None:
        raise click.UsageError("expected a scene folder as SCENE or behind --source, got none")
    if model is None:
        model = str(Path("output") / Path(scene).resolve().name)
    from splatrender import training  # here, so that --help need not load torch

    loaded()
    try:
        result = training.train(training.TrainOptions(source=scene, model=model, **options))
    except (
        training.TrainingDeviceFault,
        training.TrainingDiverged,
        training.TrainingOutOfMemory,
    ) as error:
        raise click.ClickException(str(error)) from error
    if options["quiet"]:  # the one line that is the answer, for logs and scripts
        click.echo(result.summary)
