"""Parts that the commands share: options under headings, lists of numbers, colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from splatrender.errors import InputError

BACKENDS = ["auto", "cpu", "cuda"]  # as in runtime.devices, which loads torch
if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # of some versions it is not generic

LAST = "Other"  # heading of what has none, at the end


class SectionOption(click.Option):
    """An option that is listed in the help text under a heading.

    Args:
        section: the heading.
    """

    def __init__(self, *args: Any, section: str = LAST, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return flags and help, without the spellings with underscores, kept for 3DGS users."""
        flags = self.opts
        self.opts = [flag for flag in flags if "_" not in flag]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = flags


class SectionCommand(click.Command):
    """A command with its options under headings, in the order of their declaration.

    Options of type `IterationList` take several numbers behind one flag (`--flag 1000 2000`), as
    users of 3D Gaussian splatting are used to.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one list for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                section = getattr(parameter, "section", LAST)
                sections.setdefault(section, []).append(record)
        sections[LAST] = sections.pop(LAST, [])
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records, col_max=34)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the numbers behind a flag that takes a list, then parse as usual."""
        flags = {
            flag
            for parameter in self.params
            if isinstance(parameter.type, IterationList)
            for flag in parameter.opts
        }
        joined: list[str] = []
        in_list = False
        for argument in args:
            if in_list and argument.isdecimal() and joined[-1] not in flags:
                joined[-1] += f",{argument}"
            else:
                in_list = argument in flags or (in_list and joined[-1] in flags)
                joined.append(argument)
        return super().parse_args(ctx, joined)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; messages on bad input name an option by its flag."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise InputError(self._with_flag(str(error))) from error

    def _with_flag(self, message: str) -> str:
        """Return `--max-splats: expected ...` for `max_splats: expected ...`."""
        name = message.split(":")[0]
        for parameter in self.params:
            if isinstance(parameter, click.Option) and parameter.name == name:
                flag = max(parameter.opts, key=lambda flag: ("_" not in flag, len(flag)))
                return flag + message.removeprefix(name)
        return message


class IterationList(ParamType):
    """Positive whole numbers: `1000,7000`, or `1000 7000` behind the flag."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(",") if part.strip())
        except ValueError:
            self.fail(f"expected whole numbers like 1000,7000, got {value!r}", param, ctx)


NAMED = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}


class Color(ParamType):
    """A colour: `black`, `white` or three numbers from 0 to 1 like `0.2,0.2,0.2`."""

    name = "R,G,B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the colour as three numbers."""
        if isinstance(value, tuple):
            return value
        if value in NAMED:
            return NAMED[value]
        try:
            color = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            color = ()
        if len(color) != 3 or not all(0 <= part <= 1 for part in color):
            self.fail(
                f"expected black, white or three numbers from 0 to 1 like 1,0.5,0, got {value!r}",
                param,
                ctx,
            )
        return color


def option(*names: str, section: str, **kwargs: Any) -> Any:
    """Declare a `click.option` under a heading, with its default shown.

    Args:
        names: flags and the parameter's name.
        section: the heading.
        kwargs: arguments of `click.option`.

    Returns:
        A decorator.
    """
    kwargs.setdefault("show_default", True)
    return click.option(*names, cls=SectionOption, section=section, **kwargs)


def one_of(name: str, given: str | None, other: str | None) -> str | None:
    """Return a value that is given as an argument or by a flag; refuse two values.

    Args:
        name: name of the value in messages.
        given: value of the argument.
        other: value of the flag.

    Returns:
        The value, or None.

    Raises:
        click.UsageError: there are two and they differ.
    """
    if given is not None and other is not None and given != other:
        raise click.UsageError(f"expected one {name}, got two: {given} and {other}")
    return given if given is not None else other
