"""Writes the index of a log's times, which `log_times` reads. Blocks: call it in a thread."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from orchestrator.log_times import MAX_RECORDS, RECORD, UNKNOWN

# Bytes that arrive within this time of a record share its time: a guest may print single bytes.
EVERY_SECS = 0.05
# If the two clocks differ by more, somebody set the clock, or the host slept.
STEP_SECS = 1.0


class TimeFile:
    """The index at `path`. It never fails a job: if it cannot be written, it is deleted.

    A record is written before its bytes. So if this process dies in between, no byte gets the time
    of an earlier one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._count = 0
        self._wall = self._steady = 0.0
        self._followed = False

    def open(self, size: int, *, resume: bool) -> None:
        """Start over, or resume a log of `size` bytes that nobody followed until now."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(self._path, flags | (0 if resume else os.O_TRUNC), 0o644)
            self._count = os.fstat(self._file).st_size // RECORD.size
            os.ftruncate(self._file, self._count * RECORD.size)
        except OSError:
            self._give_up()
        if resume:
            self.interrupt(size)

    def note(self, offset: int) -> None:
        """Bytes from `offset` on arrive now."""
        if not self._followed or time.monotonic() - self._steady >= EVERY_SECS:
            self._record(offset)

    def interrupt(self, offset: int) -> None:
        """From `offset` on, nobody follows the log."""
        self._followed = False
        self._put(offset, UNKNOWN)

    def end(self, offset: int) -> None:
        """The log was followed until now, and ends at `offset`; from here on nobody follows it."""
        self._record(offset)
        self.interrupt(offset)

    def restart(self) -> None:
        """Start over from the first byte."""
        self._followed = False
        self._count = 0
        if self._file >= 0:
            try:
                os.ftruncate(self._file, 0)
            except OSError:
                self._give_up()

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):
                os.close(file)

    def _record(self, offset: int) -> None:
        wall, steady = time.time(), time.monotonic()
        if self._followed and abs(wall - self._wall - steady + self._steady) > STEP_SECS:
            self.interrupt(offset)
        self._wall, self._steady, self._followed = wall, steady, True
        self._put(offset, max(UNKNOWN, int(wall * 1000)))

    def _put(self, offset: int, moment: int) -> None:
        if self._file < 0 or self._count >= MAX_RECORDS:
            return
        self._count += 1
        if self._count == MAX_RECORDS:
            moment = UNKNOWN
        try:
            written = os.write(self._file, RECORD.pack(offset, moment))
        except OSError:
            written = 0
        if written < RECORD.size:
            self._give_up()

    def _give_up(self) -> None:
        self.close()
        with suppress(OSError):
            os.unlink(self._path)
