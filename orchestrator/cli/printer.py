"""Writes to stdout beside the event loop: a terminal or a pipe may take nothing for a while."""

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
    """Pieces of output, written in order by `run`.

    `say` is for a few words and never waits; `write` waits until the piece is written, so that
    whoever copies a log reads no faster than stdout takes it.
    """

    def __init__(self, write: Callable[[str | bytes], None] | None = None) -> None:
        self._write = write or write_stdout
        self._pieces: deque[_Piece] = deque()
        self._arrival = trio.Event()
        self._broken: StreamBroken | None = None

    def say(self, text: str) -> None:
        """Print a line soon."""
        self._add(text + "\n")

    async def write(self, data: str | bytes) -> None:
        """Print this, and return when it is written. Cancelled, it may still be printed."""
        await self._add(data).written.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, until cancelled.

        Once stdout takes no more, pieces are dropped: the jobs are not to end for that. A write
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


def write_stdout(data: str | bytes) -> None:
    """Write to stdout, past its buffer; characters that its encoding lacks are escaped."""
    if isinstance(data, str):
        data = data.encode(sys.stdout.encoding, "backslashreplace")
    write_all(1, data)
