"""What `pikaci logs` does with a log's bytes: print them as they are, or line by line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from orchestrator.cli.log_forms import JsonForm, TextForm
from orchestrator.cli.output import print_bytes
from orchestrator.log_lines import (
    Line,
    LineSplitter,
    Place,
    find_last_lines,
    find_last_matches,
)
from orchestrator.log_times import LogTimes, read_log_times
from orchestrator.terminal import RESET, TerminalFilter


class BytePrinter:
    """Prints every byte; on a terminal what is harmless."""

    def __init__(self) -> None:
        self._filter = TerminalFilter() if sys.stdout.isatty() else None

    def find_last(self, file: int, lines: int) -> Place:
        """Where the last lines of an open log begin."""
        return find_last_lines(file, lines, numbered=False)

    def begin(self, log: Path, place: Place) -> None:
        """What comes next is this log's, from this place on."""

    def feed(self, data: bytes) -> None:
        """Print the next bytes."""
        if self._filter is None:
            print_bytes(data)
        else:
            self._show(self._filter.feed(data))

    def end(self) -> None:
        """Print what is left of a character or a colour that the log ends in."""
        if self._filter is not None:
            self._show(self._filter.end() + RESET)

    def _show(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


class LinePrinter:
    """Prints lines that match, each when it is whole; `pattern` None matches all."""

    def __init__(self, form: TextForm | JsonForm, pattern: re.Pattern[str] | None) -> None:
        self._form = form
        self._pattern = pattern
        self._log = Path()
        self._times = LogTimes()
        self._lines = LineSplitter(Place())
        # One for all lines, as it takes its time to make: what a line opens, its end closes.
        self._colourless = TerminalFilter(colours=False)

    def find_last(self, file: int, lines: int) -> Place:
        """Where the last matching lines of an open log begin."""
        if self._pattern is None:
            return find_last_lines(file, lines, numbered=self._form.numbered)
        return find_last_matches(file, lines, self._matches)

    def begin(self, log: Path, place: Place) -> None:
        """What comes next is this log's, from this place on."""
        self._print(self._lines.end())
        self._log = log
        self._times = LogTimes()
        self._lines = LineSplitter(place)
        self._colourless = TerminalFilter(colours=False)

    def feed(self, data: bytes) -> None:
        """Print the lines that end in the next bytes."""
        if self._form.timed:
            # Their times were in the index before they were in the log.
            self._times = read_log_times(self._log, self._times)
        self._print(self._lines.feed(data))

    def end(self) -> None:
        """Print the last line, which nothing ends."""
        self._print(self._lines.end())
        print_bytes(self._form.end())

    def _print(self, lines: Iterable[Line]) -> None:
        shown = b"".join(
            self._form.show(line, self._times.at(line.place.offset))
            for line in lines
            if self._matches(line)
        )
        if shown:
            print_bytes(shown)

    def _matches(self, line: Line) -> bool:
        if self._pattern is None:
            return True
        text = self._colourless.feed_text(line.data.decode("utf-8", "replace"))
        return self._pattern.search(text.rstrip("\r\n")) is not None
