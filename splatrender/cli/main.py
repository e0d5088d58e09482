"""The command `splatrender`, and the exit codes and messages of every command."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click

from splatrender import __version__
from splatrender.cli.convert import convert
from splatrender.cli.loading import stop_at_once
from splatrender.cli.plot_flow import plot_flow
from splatrender.cli.predict import predict
from splatrender.cli.regress import regress
from splatrender.cli.render import render
from splatrender.cli.train import train
from splatrender.errors import InputError, WriteError

BAD_INPUT = 2
NOT_WRITTEN = 74  # EX_IOERR of sysexits.h: a full disk, a quota, a network disk that is gone
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="splatrender")
def cli() -> None:
    """Gaussian splats from photos (train), new views of them (render), and functions (regress)."""


cli.add_command(train)
cli.add_command(render)
cli.add_command(convert)
cli.add_command(regress)
cli.add_command(predict)
cli.add_command(plot_flow)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `splatrender` and exit.

    Args:
        arguments: those of the command line; by default those of the process.
    """
    run(cli, "splatrender", arguments)


def run(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit.

    The exit code is 0; 1 when the work failed; 2 for bad input, with one line on stderr; 74 when a
    file could not be written, likewise; 130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP.

    Args:
        command: command to run.
        name: name by which the user called it.
        arguments: those of the command line; by default those of the process.
    """
    # Threads that spin while they wait slow down a busy machine. torch reads this when it is
    # loaded, and no command has loaded it yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _show_every_name()
    _show_log()
    with stop_at_once():
        sys.exit(_outcome(command, name, arguments))


def _outcome(command: click.Command, name: str, arguments: Sequence[str] | None) -> int:
    """Run a command; return its exit code, after a line on stderr if it failed."""
    try:
        code = command.main(arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()  # here, where a full disk behind it can still be reported
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        _print(error.ctx.get_help() if error.ctx else "")
        return BAD_INPUT
    except click.UsageError as error:
        _print(f"error: {_lowered(error.format_message())} (see {_help(error, name)})")
        return BAD_INPUT
    except InputError as error:
        _print(f"error: {_one_line(str(error))}")
        return BAD_INPUT
    except click.ClickException as error:
        _print(f"error: {_one_line(error.format_message())}")
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        _print("\nstopped")
        return INTERRUPTED
    except SystemExit as error:
        message = getattr(error, "message", None)
        if message:
            _print(message)
        raise
    except OSError as error:
        return _not_written(error)


def _not_written(error: OSError) -> int:
    """Print one line for an error of the system; return the exit code."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    if error.errno == errno.EPIPE:  # the reader has stopped, as in `splatrender ... | head`
        return 1
    message = str(error)
    if not isinstance(error, WriteError) and error.strerror:
        message = f"{error.filename or 'a file or the standard output'}: {error.strerror}"
    _print(f"error: {_one_line(message)}")
    return NOT_WRITTEN


def _print(message: str) -> None:
    """Print on stderr, if it is still there: a terminal may have been closed."""
    with suppress(OSError):
        click.echo(message, err=True)


def _show_every_name() -> None:
    """Print escapes for characters that a terminal cannot show, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _lowered(message: str) -> str:
    """Return click's sentence in lower case, to follow `error: `."""
    message = _one_line(message).rstrip(".")
    return message[:1].lower() + message[1:]


def _help(error: click.UsageError, name: str) -> str:
    return f"{error.ctx.command_path if error.ctx else name} --help"


class _LogLine(logging.Formatter):
    """Formatter of log records: `warning: message`, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"


def _show_log() -> None:
    """Send warnings of the package to stderr."""
    logger = logging.getLogger("splatrender")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_LogLine())
        logger.addHandler(handler)
