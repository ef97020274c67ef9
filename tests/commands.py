"""The command lines of this machine's processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def command_lines() -> Iterator[tuple[int, bytes]]:
    """Of every process: its pid, and its words, each with a NUL behind it."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                # Not by a glob of the files: it raises when a process ends meanwhile.
                yield int(process.name), (process / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                pass
