"""What stdout can show: colours, and the marks of finished jobs."""

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
    known = colours.can_print(UNICODE.passed + UNICODE.failed + UNICODE.cut)
    return Style(colours.wanted(), UNICODE if known else ASCII)
