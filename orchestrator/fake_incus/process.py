"""A process in a guest: its output and its end. It does not depend on its observers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from orchestrator.incus import Sink

KILLED = 137  # 128 + SIGKILL, as seen when the guest stops
_CHUNK = 64 * 1024


class Output:
    """Output that grows. Any number of readers can follow it, each from its own offset."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._closed = False
        self._changed = trio.Event()

    def write(self, data: bytes) -> None:
        """Append, and wake the readers."""
        self.data += data
        self._wake()

    def close(self) -> None:
        """End the output."""
        self._closed = True
        self._wake()

    async def copy_to(self, sink: Sink, offset: int = 0) -> None:
        """Copy everything from byte `offset` to the sink, until the output is closed."""
        while True:
            if chunk := bytes(self.data[offset : offset + _CHUNK]):
                offset += len(chunk)
                await sink(chunk)
            elif self._closed:
                return
            else:
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Process:
    """A running function. If killed, it ends with `KILLED` and prints no more."""

    def __init__(self) -> None:
        self.output = Output()
        self.errors = bytearray()  # its stderr, used by few programs
        self.exit_code: int | None = None
        self.ended = trio.Event()
        self._scope = trio.CancelScope()

    async def run(self, body: Callable[[Process], Awaitable[int]]) -> None:
        """Run `body`, whose return value is the exit code."""
        try:
            with self._scope:
                self.exit_code = await body(self)
        finally:
            if self.exit_code is None:
                self.exit_code = KILLED
            self.output.close()
            self.ended.set()

    def kill(self) -> None:
        """Kill it at once."""
        self._scope.cancel()
