"""Files that may be slow, or never answer: looked at in worker threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeVar

import trio

from orchestrator.errors import UsageError

_T = TypeVar("_T")

LOOK_UP_SECS = 10.0
# A look-up that never ends keeps its thread. Only so many may: the other threads stay the jobs'.
_THREADS = 8
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("look_up")


async def look_up(what: str, call: Callable[[], _T]) -> _T:
    """What `call` finds at paths that a user named; they may lie on a file system that is away.

    `UsageError` when there is no answer within `LOOK_UP_SECS`; `what` says what was looked up.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    with trio.move_on_after(LOOK_UP_SECS):
        return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
    raise UsageError(
        f"{what}: its file system did not answer within {LOOK_UP_SECS:g} s",
        resolution="is it on a network file system that is away? `stat` on the path says so",
    )


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """The same context manager, entered and left in a worker thread. It is left in any case."""
    value = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        raised = (type(error), error, error.__traceback__)
        with trio.CancelScope(shield=True):
            handled = await trio.to_thread.run_sync(manager.__exit__, *raised)
        if not handled:
            raise
    else:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(manager.__exit__, None, None, None)
