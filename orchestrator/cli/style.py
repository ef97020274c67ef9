"""What stdout and stderr can show: colours, and the marks of finished jobs."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cli import colours
from orchestrator.cli.board import ASCII, UNICODE, Marks


@dataclass(frozen=True)
class Style:
    """How text for people is written to a stream."""

    coloured: bool
    marks: Marks

    @property
    def paint(self) -> colours.Paint:
        """Puts a colour's code around a text, where colours are wanted."""
        return colours.painter(self.coloured)


def stdout_style() -> Style:
    """The style that this process's stdout takes."""
    return _style(1)


def stderr_style() -> Style:
    """The style that this process's stderr takes."""
    return _style(2)


def _style(descriptor: int) -> Style:
    known = colours.can_print(UNICODE.passed + UNICODE.failed + UNICODE.cut, descriptor)
    return Style(colours.wanted(descriptor), UNICODE if known else ASCII)
