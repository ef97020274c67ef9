"""pikaci for threads, without a loop of one's own.

with open_sync(Orchestrator.open(settings)) as (portal, orchestrator):
    job = portal.call(orchestrator.submit_and_wait, JobSpec(command="make test"))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from orchestrator.portal import Block, Call, End, Loop, open_loop

__all__ = ["Portal", "open_sync"]

P = ParamSpec("P")
T = TypeVar("T")


class Portal:
    """Calls async functions of what `open_sync` opened, from any thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an async function, and return its result.

        When the wait is interrupted, as by Ctrl-C, the call is cancelled, and has ended when the
        interruption goes on: the job of a `submit_and_wait` is dead then.
        """
        call = self._loop.start(partial(function, *args, **kwargs))
        return _result(call.future, call)

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator, such as `job.events()`, as they come."""
        try:
            while True:
                call = self._loop.next(items)
                item = _result(call.future, call)
                if isinstance(item, End):
                    return
                yield item
        finally:
            closing = self._loop.close(items)
            _result(closing.future, closing)


@contextmanager
def open_sync(manager: AbstractAsyncContextManager[T]) -> Iterator[tuple[Portal, T]]:
    """Open what a trio program would open with `async with`, in a thread of its own.

    The block ends as the manager's does: that of an orchestrator when its jobs have ended. An
    exception in the block, or while its end waits, cancels the jobs first.
    """
    with open_loop() as loop:
        block = Block(loop, manager)
        opened = _result(block.entered, block.call)
        try:
            yield Portal(loop), opened
        except BaseException:
            _cancel(block.call)
            raise
        block.leave()
        _result(block.call.future, block.call)


def _result(future: Future[T], call: Call[Any]) -> T:
    try:
        return future.result()
    except BaseException:
        _cancel(call)
        raise


def _cancel(call: Call[Any]) -> None:
    call.future.cancel()
    call.ended.result()
