"""The line on a terminal that says how far a snapshot is."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.units import counted, size

if TYPE_CHECKING:
    from orchestrator.snapshot.progress import Progress

_CLEAR = "\r\x1b[K"


def describe_progress(progress: Progress) -> str:
    """What is being done to how many files, on one line."""
    if progress.doing == "packing":
        return f"snapshot: packing git's history, {size(progress.size)}"
    if not progress.total:
        return f"snapshot: {progress.doing} files"
    files = f"{progress.files} of {counted(progress.total, 'file')}"
    return f"snapshot: {progress.doing} {files}, {size(progress.size)}"


class ProgressLine:
    """A line on stderr that is written over. There is none if stderr is not a terminal.

    `say` writes to stderr, without holding up the loop.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._terminal = os.isatty(2) and os.environ.get("TERM") != "dumb"
        self._shown = False

    def show(self, progress: Progress | None) -> None:
        """Show how far a snapshot is; None clears the line."""
        if not self._terminal or (progress is None and not self._shown):
            return
        text = describe_progress(progress) if progress is not None else ""
        self._say(_CLEAR + text)
        self._shown = progress is not None
