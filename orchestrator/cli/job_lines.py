"""The output of several jobs as lines, each after its job's name."""

from __future__ import annotations

from orchestrator.cli import colours
from orchestrator.cli.board import pad, shorten
from orchestrator.cli.printer import Printer
from orchestrator.cli.style import Style
from orchestrator.cli.watched import WatchedRun
from orchestrator.log_lines import Line, LineSplitter, Place
from orchestrator.terminal import last_state

MAX_NAME = 40
# Of a longer line the start is shown.
MAX_LINE = 1 << 16


class JobLines:
    """`job | line`, as it comes. `width` is that of the column of names."""

    def __init__(self, known: WatchedRun, printer: Printer, style: Style) -> None:
        self.width = 1
        self._known = known
        self._printer = printer
        self._style = style
        self._lines: dict[str, LineSplitter] = {}

    def begin(self) -> None:
        """The jobs of the run are known."""
        self.width = min(MAX_NAME, max(map(len, self._known.names), default=1))

    async def feed(self, job: str, chunk: bytes) -> None:
        """Print the lines that end in the next piece of a job's log."""
        lines = self._lines.setdefault(job, LineSplitter(Place()))
        await self._print(job, list(lines.feed(chunk)))

    async def end(self, job: str) -> None:
        """Print what is left of a job's log."""
        if job in self._lines:
            await self._print(job, list(self._lines.pop(job).end()))

    async def _print(self, job: str, lines: list[Line]) -> None:
        if not lines:
            return
        cut = self._style.marks.cut
        name = pad(shorten(self._known.name(job), self.width, cut), self.width)
        end = colours.RESET if self._style.coloured else ""
        text = "".join(
            f"{name} | {last_state(line.data, colours=self._style.coloured, most=MAX_LINE)}{end}\n"
            for line in lines
        )
        await self._printer.write(text)
