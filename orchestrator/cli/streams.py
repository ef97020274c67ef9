"""stdout and stderr as streams that take any text, in full."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any

from states.errors import PikaciError


class StreamBroken(PikaciError):
    """stdout or stderr cannot be written.

    No `OSError`: of a broken pipe click and rich would make an exit code of their own.
    """


class NobodyReads(StreamBroken):
    """It is a pipe, and whoever read it has gone."""


class _PatientFile(io.FileIO):
    """A descriptor that is written to in full, also where it does not block."""

    def write(self, data: Any) -> int:
        """Waits for room. A short write is one, and the buffer above writes the rest."""
        return _write_some(self.fileno(), data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write to stdout or stderr at once, past the stream's buffer, which must be empty.

    A thread that is stuck here holds no lock of the stream. `StreamBroken` when it takes no more.
    """
    left = memoryview(data)
    while left:
        left = left[_write_some(descriptor, left) :]


def _write_some(descriptor: int, data: Any) -> int:
    try:
        while True:
            try:
                return os.write(descriptor, data)
            except BlockingIOError:
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()
    except OSError as error:
        name = {1: "stdout", 2: "stderr"}[descriptor]
        kind = NobodyReads if isinstance(error, BrokenPipeError) else StreamBroken
        raise kind(f"{name} cannot be written: {error.strerror}") from None


def open_streams() -> None:
    """Make stdout and stderr streams that take any text, in full.

    One of the three that was closed at the start is /dev/null from then on: a file that is opened
    later must not be taken for it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def flush() -> None:
    """Write what is still to be written. `StreamBroken` when it cannot be; then it is dropped."""
    problem = None
    for descriptor, stream in ((2, sys.stderr), (1, sys.stdout)):
        try:
            stream.flush()
        except StreamBroken as error:
            # The interpreter would try again at its end, and exit with a code of its own.
            drop(descriptor)
            problem = error
    if problem is not None:
        raise problem


def drop(*descriptors: int) -> None:
    """What is written to them from now on goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _stream(descriptor: int, now: Any) -> io.TextIOWrapper:
    """What cannot be written in its encoding is escaped."""
    return io.TextIOWrapper(
        io.BufferedWriter(_PatientFile(descriptor, "w", closefd=False)),
        encoding=now.encoding if now is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )
