"""The end of a log as plain text: what a page shows before its script, or without one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.terminal import plain

BYTES = 64 * 1024
LINES = 200
MAX_LINE = 2000


@dataclass(frozen=True)
class LogEnd:
    """The last lines of a log of so many bytes; `whole` when nothing stands before them."""

    text: str
    size: int
    whole: bool


def read_log_end(path: Path) -> LogEnd:
    """The end of a log; an empty one when there is none."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return LogEnd("", 0, True)
    try:
        size = os.fstat(file).st_size
        start = max(0, size - BYTES)
        data = os.pread(file, BYTES, start)
    finally:
        os.close(file)
    lines = data.removesuffix(b"\n").split(b"\n")
    shown = lines[-LINES:]
    text = "\n".join(_shown(line) for line in shown)
    return LogEnd(text, size, start == 0 and len(shown) == len(lines))


def _shown(line: bytes) -> str:
    """What a terminal would show of the line in the end: a return begins it anew."""
    kept = line.rstrip(b"\r").rpartition(b"\r")[2]
    return plain(kept[: 4 * MAX_LINE].decode("utf-8", "replace"))[:MAX_LINE]
