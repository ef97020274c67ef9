"""A process in a guest: what it prints, and how it ends. It lives apart from whoever watches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from orchestrator.incus import Sink

KILLED = 137  # 128 + SIGKILL, which is how it looks when the guest goes
_CHUNK = 64 * 1024


class Output:
    """Bytes that grow. Any number of readers follow them, each from where it likes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._closed = False
        self._changed = trio.Event()

    def write(self, data: bytes) -> None:
        """Append, and wake who waits."""
        self.data += data
        self._wake()

    def close(self) -> None:
        """There will be no more."""
        self._closed = True
        self._wake()

    async def copy_to(self, sink: Sink, offset: int = 0) -> None:
        """Give everything from byte `offset` on to the sink, until the output is closed."""
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
    """A running body of code. Killed, it ends with `KILLED` and says nothing."""

    def __init__(self) -> None:
        self.output = Output()
        self.errors = bytearray()  # its stderr; of the few programs that have any to say
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
        """End it at once."""
        self._scope.cancel()
