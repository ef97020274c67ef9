"""Reads the end of a log: for a summary, and for a page whose script has not run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.terminal import last_state

LINES = 200
MAX_LINE = 2000
# Most of a progress bar's long line is not shown. In such a log, more is read.
BYTES = 64 * 1024
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class LogEnd:
    """The last lines of a log of `size` bytes; `whole` if these are all lines."""

    lines: tuple[str, ...]
    size: int
    whole: bool

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "\n".join(self.lines)


def read_log_end(path: Path, *, lines: int = LINES, colours: bool = False) -> LogEnd:
    """The last lines of a log as a terminal finally shows them; empty if there is no log.

    At most `lines` lines and `BYTES` characters.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return LogEnd((), 0, True)
    try:
        size = os.fstat(file).st_size
        if size == 0:
            return LogEnd((), 0, True)
        wanted = BYTES
        while True:
            start = max(0, size - wanted)
            found = os.pread(file, wanted, start).removesuffix(b"\n").split(b"\n")
            shown = _last(found[-lines:], colours=colours)
            if start == 0 or len(shown) < len(found) or wanted >= MAX_BYTES:
                break
            wanted *= 8
    finally:
        os.close(file)
    return LogEnd(shown, size, size <= BYTES and len(shown) == len(found))


def _last(found: list[bytes], *, colours: bool) -> tuple[str, ...]:
    """The last of these lines, with at most `BYTES` characters; always includes the very last."""
    shown: list[str] = []
    left = BYTES
    for line in reversed(found):
        text = last_state(line, colours=colours, most=MAX_LINE)
        left -= len(text) + 1
        if left < 0 and shown:
            break
        shown.append(text)
    return tuple(reversed(shown))
