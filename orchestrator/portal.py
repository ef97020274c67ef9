"""A trio loop in a thread of its own, for programs that have another loop, or none.

`orchestrator.blocking` and `orchestrator.aio` wait for what runs in it, each in its own way. Needs
anyio: `pip install "/path/to/pikaci[portal]"`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from orchestrator.errors import UsageError

T = TypeVar("T")


class End:
    """Says that an iterator has no more."""


END: Final = End()


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call in the trio loop. `future` has its result; cancel it, and the call is cancelled.

    `ended` is done when nothing of the call runs any more, also if it was cancelled.
    """

    future: Future[T]
    ended: Future[None]


class Loop:
    """The trio loop; made by `open_loop`."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal

    def start(self, call: Callable[[], Awaitable[T]]) -> Call[T]:
        """Start a call. `UsageError` if the loop has ended, or if this is its own thread."""
        ended: Future[None] = Future()

        async def run() -> T:
            try:
                return await call()
            finally:
                ended.set_result(None)

        try:
            return Call(self._portal.start_task_soon(run), ended)
        except RuntimeError as error:
            raise UsageError(
                f"this cannot be called here: {error}",
                resolution="call it from another thread, before the end of the block",
            ) from None

    def next(self, items: AsyncIterator[T]) -> Call[T | End]:
        """Start to wait for the next of the items; it is `END` after the last."""

        async def more() -> T | End:
            async for item in items:
                return item
            return END

        return self.start(more)

    def close(self, items: AsyncIterator[T]) -> Call[None]:
        """Start to end an iterator that is not read any further."""

        async def close() -> None:
            if aclose := getattr(items, "aclose", None):
                await aclose()

        return self.start(close)


class Block(Generic[T]):
    """The block of an async context manager, in the trio loop.

    `entered` has what the manager gives. Cancel `call`, and the block is cancelled.
    """

    def __init__(self, loop: Loop, manager: AbstractAsyncContextManager[T]) -> None:
        self.entered: Future[T] = Future()
        self._loop = loop
        self._manager = manager
        self._leaving = trio.Event()
        self.call = loop.start(self._live)

    def leave(self) -> None:
        """Let the block end; `call` is done when it has."""

        async def leave() -> None:
            self._leaving.set()

        self._loop.start(leave)

    async def _live(self) -> None:
        try:
            async with self._manager as value:
                self.entered.set_result(value)
                await self._leaving.wait()
        except BaseException as error:
            if not self.entered.done():
                self.entered.set_exception(error)
            raise


@contextmanager
def open_loop() -> Iterator[Loop]:
    """A trio loop in a new thread, until the end of the block."""
    with start_blocking_portal("trio") as portal:
        yield Loop(portal)
