"""`splatrender predict`: write a fitted model's predictions for a table."""

from __future__ import annotations

from pathlib import Path

import click

from splatrender.cli.loading import loaded


@click.command("predict", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("table", metavar="FILE.csv")
@click.option("-o", "--out", metavar="FILE", help="Table to write.  [default: standard output]")
def predict(model: str, table: str, out: str | None) -> None:
    """Predict with MODEL, which `regress` fitted to a table, from the columns of FILE.csv.

    MODEL is a model.pt or the folder that `regress` wrote. FILE.csv must have the model's input
    columns, by name and in any order. The output table has these and the predicted columns.

    \b
    Example:
      splatrender regress data.csv --inputs x,y --outputs u --out output/u
      splatrender predict output/u new.csv --out predicted.csv
    """
    from splatrender.io.atomic import write_text
    from splatrender.regression.prediction import predict_table  # imported here: --help stays fast

    loaded()
    text = predict_table(model, table)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(Path(out), text)
        click.echo(out)
