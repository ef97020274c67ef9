"""pikaci for asyncio.

async with aio.open(Orchestrator.open(settings)) as (portal, orchestrator):
    job = await portal.call(orchestrator.submit_and_wait, JobSpec(command="make test"))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from orchestrator.portal import Block, Call, End, Loop, open_loop

__all__ = ["Portal", "open"]

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """Calls async functions of what `open` opened, from asyncio."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    async def call(
        self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call an async function of trio, and return its result.

        A cancellation cancels the call, and goes on when the call has ended: the job of a
        `submit_and_wait` is dead then.
        """
        call = self._loop.start(partial(function, *args, **kwargs))
        return await _result(call.future, call)

    async def each(self, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The items of an async iterator of trio, such as `job.events()`, as they come."""
        try:
            while True:
                call = self._loop.next(items)
                item = await _result(call.future, call)
                if isinstance(item, End):
                    return
                yield item
        finally:
            closing = self._loop.close(items)
            await _result(closing.future, closing)


@asynccontextmanager
async def open(manager: AbstractAsyncContextManager[T]) -> AsyncIterator[tuple[Portal, T]]:
    """Open what a trio program would open with `async with`, in a thread of its own.

    The block ends as the manager's does: that of an orchestrator when its jobs have ended. An
    exception in the block, or a cancellation of it or of its end, cancels the jobs first.
    """
    with open_loop() as loop:
        block = Block(loop, manager)
        opened = await _result(block.entered, block.call)
        try:
            yield Portal(loop), opened
        except BaseException:
            await _cancel(block.call)
            raise
        block.leave()
        await _result(block.call.future, block.call)


async def _result(future: Future[T], call: Call[Any]) -> T:
    try:
        return await asyncio.wrap_future(future)
    except BaseException:
        await _cancel(call)
        raise


async def _cancel(call: Call[Any]) -> None:
    """Cancel the call, and return when it has ended, whatever else is cancelled meanwhile."""
    call.future.cancel()
    ended = asyncio.wrap_future(call.ended)
    while not ended.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(ended)
