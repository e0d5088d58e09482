"""The command `splatrender`, and how every command ends."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from splatrender import __version__
from splatrender.cli.plot_flow import plot_flow
from splatrender.cli.regress import regress
from splatrender.cli.render import render
from splatrender.cli.train import train
from splatrender.errors import InputError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="splatrender")
def cli() -> None:
    """Gaussian splats from photos (train), new views of them (render), and functions (regress)."""


cli.add_command(train)
cli.add_command(render)
cli.add_command(regress)
cli.add_command(plot_flow)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `splatrender` and exit.

    Args:
        arguments: of the command line; those of the process by default.
    """
    run(cli, "splatrender", arguments)


def run(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0, or 2 with one line on stderr for bad input, 130 for Ctrl-C.

    Args:
        command: what to run.
        name: how the user called it.
        arguments: of the command line; those of the process by default.
    """
    # Threads that spin while they wait for one another slow everybody down on a busy machine. Read
    # when torch is loaded, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _show_log()
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        code = BAD_INPUT
    except click.UsageError as error:
        click.echo(
            f"error: {_lowered(error.format_message())} (see {_help(error, name)})", err=True
        )
        code = BAD_INPUT
    except InputError as error:
        click.echo(f"error: {_one_line(str(error))}", err=True)
        code = BAD_INPUT
    except click.ClickException as error:
        click.echo(f"error: {_one_line(error.format_message())}", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nstopped", err=True)
        code = INTERRUPTED
    except SystemExit as error:
        message = getattr(error, "message", None)
        if message:
            click.echo(message, err=True)
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _lowered(message: str) -> str:
    """Click's sentence, as the end of ours."""
    message = _one_line(message).rstrip(".")
    return message[:1].lower() + message[1:]


def _help(error: click.UsageError, name: str) -> str:
    return f"{error.ctx.command_path if error.ctx else name} --help"


class _LogLine(logging.Formatter):
    """`warning: message`, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"


def _show_log() -> None:
    """Warnings of the package go to stderr."""
    logger = logging.getLogger("splatrender")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_LogLine())
        logger.addHandler(handler)
