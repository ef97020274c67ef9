"""What is wrong with the arguments: one line, in the words of all other errors."""

from __future__ import annotations

from typing import Any

import click

from states.errors import PikaciError


class OneOf(click.Choice[str]):
    """One of a few words; the error for another one names the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(super().convert(value, param, ctx))
        except click.BadParameter:
            from states.mistakes import did_you_mean

            near = did_you_mean(str(value), self.choices)
            self.fail(f"{value!r} is not allowed{near}; allowed: {', '.join(self.choices)}")


def wrong_usage(error: click.UsageError) -> PikaciError:
    """A click error as one of ours."""
    path = error.ctx.command_path if error.ctx else "pikaci"
    return PikaciError(_brief(error), resolution=f"`{path} --help` lists what is allowed")


def _brief(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        from states.mistakes import did_you_mean

        known = [
            name
            for param in (error.ctx.command.params if error.ctx else [])
            for name in param.opts
            if name.startswith("--")
        ]
        return f"there is no option {error.option_name}{did_you_mean(error.option_name, known)}"
    if isinstance(error, click.MissingParameter):
        return f"{_name(error.param)} is missing"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_name(error.param)}: {error.message.rstrip('.')}"
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


def _name(param: click.Parameter | None) -> str:
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return (param.human_readable_name if param else "") or "an argument"
