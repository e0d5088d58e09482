"""Command `splatrender plot-flow`: plot the births and deaths of a run."""

from __future__ import annotations

import click

from splatrender.cli.loading import loaded
from splatrender.io.home import expand_home


@click.command("plot-flow", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option("--out", metavar="FILE", help="Image to write.  [default: MODEL/flow.png]")
def plot_flow(model: str, out: str | None) -> None:
    """Plot births, relocations and deaths of splats while MODEL was trained.

    MODEL is the output folder of `train`. The image shows mass, births, deaths, relocations, costs
    of removals and gains of births, predicted against realised changes, and the loss over time.
    """
    from splatrender.plots.flow import plot_flow as draw  # here, as --help does not need it

    loaded()
    target = None if out is None else expand_home("--out", out)
    click.echo(draw(expand_home("MODEL", model), target))
