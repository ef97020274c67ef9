"""The host's copy of a job's log, bounded whatever the guest sends."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import trio

from orchestrator.attempt.time_file import TimeFile

# The guest obeys the job's limit, and says so in a last line. Only a compromised guest sends more:
# its log is cut off here.
HEADROOM_BYTES = 64 * 1024
# Data beyond the bound is read slowly, with this pause after each piece, and dropped.
DROP_SECS = 0.01


def limit_line(max_bytes: int) -> bytes:
    """The last line of a log that reached its limit."""
    line = f"[pikaci] the log reached its limit of {max_bytes} bytes; the rest is not kept"
    return f"\n{line}\n".encode()


class LogFile:
    """Takes a log in pieces, from its first byte; with `resume`, from the end of the file.

    Keeps `max_bytes` plus `HEADROOM_BYTES`, then writes one line that says so and drops the rest.
    `times` gets the time of each piece. Opens, writes and closes in a worker thread.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, resume: bool, times: TimeFile | None = None
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._resume = resume
        self._times = times
        self._size = 0
        self._file = -1

    @property
    def offset(self) -> int:
        """How many of the guest's bytes are kept: where to resume."""
        return min(self._size, self._most)

    @property
    def full(self) -> bool:
        """Whether the guest sent more than is kept."""
        return self._size > self._most

    @property
    def _most(self) -> int:
        return self.max_bytes + HEADROOM_BYTES

    @property
    def _cut_off(self) -> bool:
        """Whether the guest dropped data too; then silence means nothing."""
        return self._size > self.max_bytes

    async def __aenter__(self) -> LogFile:
        await trio.to_thread.run_sync(self._open)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close)

    async def write(self, data: bytes) -> bytes:
        """Append as much as the bound allows, and return it; beyond the bound, only pause.

        Raises `OSError` when the disk fails. A cancelled write is completed first.
        """
        if self.full:
            await trio.sleep(DROP_SECS)
            return b""
        return await trio.to_thread.run_sync(self._write, data)

    async def restart(self) -> None:
        """Start over from the first byte."""
        if self._size:
            await trio.to_thread.run_sync(self._truncate)

    async def pause(self) -> None:
        """Note that nothing more arrives until the log is followed again. Not cancelled."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._pause)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self.path, flags | (0 if self._resume else os.O_TRUNC), 0o644)
        self._size = os.fstat(self._file).st_size
        if self._times is not None:
            self._times.open(self._size, resume=self._resume)

    def _close(self) -> None:
        if self._times is not None:
            self._times.close()
        os.close(self._file)

    def _pause(self) -> None:
        if self._times is not None and not self._cut_off:
            self._times.end(self._size)

    def _truncate(self) -> None:
        os.ftruncate(self._file, 0)
        self._size = 0
        if self._times is not None:
            self._times.restart()

    def _write(self, data: bytes) -> bytes:
        heard = not self._cut_off
        if self._times is not None and heard:
            self._times.note(self._size)
        kept = data[: self._most - self._size]
        self._put(kept)
        if len(kept) < len(data):
            self._put(limit_line(self.max_bytes))
        if self._times is not None and heard and self._cut_off:
            self._times.interrupt(self._size)
        return kept

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            count = os.write(self._file, left)
            self._size += count
            left = left[count:]
