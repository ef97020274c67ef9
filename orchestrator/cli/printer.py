"""Writes to stdout and stderr beside the event loop: a pipe may take nothing for a while, or ever.

A write in the loop would stop the jobs' deadlines, and signals.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from orchestrator.cli.streams import StreamBroken, write_all


@dataclass
class _Piece:
    data: str | bytes
    written: trio.Event = field(default_factory=trio.Event)


class Printer:
    """Pieces of output, written in order by `run`; to stdout, or with `write_stderr` to stderr.

    `say` is for a few words and never waits; `write` waits until the piece is written, so that
    whoever copies a log reads no faster than stdout takes it.
    """

    def __init__(self, write: Callable[[str | bytes], None] | None = None) -> None:
        self._write = write or write_stdout
        self._pieces: deque[_Piece] = deque()
        self._arrival = trio.Event()
        self._broken: StreamBroken | None = None

    def say(self, data: str | bytes) -> None:
        """Print this soon."""
        self._add(data)

    async def write(self, data: str | bytes) -> None:
        """Print this, and return when it is written. Cancelled, it may still be printed."""
        await self._add(data).written.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, until cancelled.

        Once the stream takes no more, pieces are dropped: the jobs are not to end for that. A write
        that is under way at a cancellation goes on in its thread, which ends with the process.
        """
        task_status.started()
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                if self._broken is None:
                    write = partial(self._write, piece.data)
                    try:
                        await trio.to_thread.run_sync(write, abandon_on_cancel=True)
                    except StreamBroken as error:
                        self._broken = error
                piece.written.set()
            self._arrival = trio.Event()
            await self._arrival.wait()

    async def drain(self) -> None:
        """Return when everything so far is written. `StreamBroken` when it could not be."""
        await self.write("")
        if self._broken is not None:
            raise self._broken

    def _add(self, data: str | bytes) -> _Piece:
        piece = _Piece(data)
        self._pieces.append(piece)
        self._arrival.set()
        return piece


async def run_printers(*printers: Printer, task_status: trio.TaskStatus[None]) -> None:
    """Write what comes to several streams, until cancelled. None waits for another."""
    async with trio.open_nursery() as nursery:
        for printer in printers:
            await nursery.start(printer.run)
        task_status.started()


def write_stdout(data: str | bytes) -> None:
    """Write to stdout, past its buffer; characters that its encoding lacks are escaped."""
    _write(1, data, sys.stdout.encoding)


def write_stderr(data: str | bytes) -> None:
    """Write to stderr like `write_stdout`."""
    _write(2, data, sys.stderr.encoding)


def _write(descriptor: int, data: str | bytes, encoding: str) -> None:
    if isinstance(data, str):
        data = data.encode(encoding, "backslashreplace")
    write_all(descriptor, data)
