"""Command `splatrender train`: from a scene folder to trained splats."""

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
    help="1, 2, 4 or 8: divisor of the photos' size; a larger number: their width in pixels; "
    "-1: longer side of at most 800 pixels.",
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
    help="Folder of masks within SCENE: black parts of the photos are ignored.",
)
@option(
    "--eval/--no-eval",
    section=SCENE,
    default=True,
    help="Hold out test photos, to measure quality on views that are not trained on.",
)
@option(
    "--holdout",
    section=SCENE,
    type=int,
    default=8,
    metavar="N",
    help="Use every Nth photo as a test photo.",
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
    help="Number of training steps, one photo each. All schedules scale with it.",
)
@option(
    "--max-splats",
    "--max_splats",
    "--cap_max",
    "max_splats",
    section=LENGTH,
    type=int,
    default=50_000,
    help="Maximum number of splats. Controls memory, training time and detail.",
)
@option(
    "--strategy",
    section=MODEL,
    default="wfr",
    help="Rule of births, deaths and relocations: wfr, mcmc, adc, adc-absgrad or none.",
)
@option(
    "--price",
    section=MODEL,
    type=float,
    metavar="X",
    help="Minimum reduction in squared error that a splat must achieve to be kept; the number of "
    "splats then follows. For --strategy wfr.",
)
@option(
    "--transport",
    section=MODEL,
    default="adam",
    help="Optimizer of the splats: adam, wasserstein (the flow itself, slower to fit), or "
    "wasserstein-scaled.",
)
@option(
    "--sh-degree",
    "--sh_degree",
    section=MODEL,
    type=click.IntRange(0, 3),
    default=3,
    help="Degree of the spherical harmonics, by which colour depends on the viewing direction.",
)
@option(
    "--antialiased",
    section=MODEL,
    is_flag=True,
    help="Correct the brightness of splats smaller than a pixel, for views from farther away.",
)
@option(
    "--test-iterations",
    "--test_iterations",
    section=OUTPUT,
    type=IterationList(),
    default=(),
    show_default=False,
    help="Iterations at which to measure quality on the test photos, in addition to the last.",
)
@option(
    "--save-iterations",
    "--save_iterations",
    section=OUTPUT,
    type=IterationList(),
    default=(),
    show_default=False,
    help="Iterations at which to write the splats as a .ply file, in addition to the last.",
)
@option(
    "--checkpoint-interval",
    "--checkpoint_interval",
    section=OUTPUT,
    type=int,
    default=1000,
    metavar="N",
    help="Save a checkpoint every N steps, from which to resume; 0: only at the end.",
)
@option(
    "--resume",
    section=RUN,
    type=click.Choice(["auto", "never"]),
    default="auto",
    help="Resume an interrupted run in the output folder, or never.",
)
@option(
    "--overwrite",
    section=RUN,
    is_flag=True,
    help="Start anew, and remove the files of an earlier run from the output folder after one "
    "step. Other files stay.",
)
@option("--seed", section=RUN, type=int, default=0, help="Random seed.")
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
    type=int,
    default=0,
    metavar="N",
    help="Number of CPU threads; 0: one for each core.",
)
@option("-q", "--quiet", section=RUN, is_flag=True, help="Print only warnings and the last line.")
@option(
    "--profile",
    section=RUN,
    is_flag=True,
    help="Print the time of each part of a step at the end.",
)
def train(scene: str | None, source: str | None, model: str | None, **options: Any) -> None:
    """Train splats on the photos of SCENE.

    SCENE is a folder with photos in images/ and their cameras in sparse/, as COLMAP writes
    them. Photos can be in subfolders, have different sizes, or be available pre-scaled as
    images_2. The output folder contains the splats as point_cloud/iteration_N/point_cloud.ply,
    which any viewer for Gaussian splats opens, the test renderings, their quality in
    results.json, and overview.png as a first impression. Ctrl-C saves splats, overview and
    checkpoint, and stops; the same command resumes the run. Training can be resumed on a
    different device.

    \b
    Examples:
      train.py scenes/still_life -m output/still_life
      train.py scenes/still_life -m output/still_life -r 4 --iterations 2000     a fast preview
    """
    scene = one_of("scene", scene, source)
    if scene is None:
        raise click.UsageError("expected a scene folder as SCENE or behind --source, got none")
    if model is None:
        model = str(Path("output") / Path(scene).resolve().name)
    from splatrender import training  # here, as --help does not need torch

    loaded()
    try:
        result = training.train(training.TrainOptions(source=scene, model=model, **options))
    except (
        training.TrainingDeviceFault,
        training.TrainingDiverged,
        training.TrainingOutOfMemory,
    ) as error:
        raise click.ClickException(str(error)) from error
    if options["quiet"]:  # one line with the result, for logs and scripts
        click.echo(result.summary)
