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


class Input:
    """The stdin of a command: all of it comes at once, perhaps while the command runs."""

    def __init__(self) -> None:
        self._data = b""
        self._given = trio.Event()

    def give(self, data: bytes) -> None:
        """End it with these bytes, unless it has ended."""
        if not self._given.is_set():
            self._data = data
            self._given.set()

    async def read(self) -> bytes:
        """Everything, when it has ended."""
        await self._given.wait()
        return self._data


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
