"""Access to files that may be slow, or never answer, in worker threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

import trio

from orchestrator.errors import UsageError

_T = TypeVar("_T")

LOOK_UP_SECS = 10.0
# A look-up that never ends keeps its thread. This many may; the other threads are for jobs.
_THREADS = 8
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("look_up")


async def look_up(what: str, call: Callable[[], _T]) -> _T:
    """Run `call`, which looks at a user's paths; their file system may not answer.

    Raises `UsageError` when there is no answer within `LOOK_UP_SECS`; `what` names what was looked
    up.
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
        resolution="is it on a network file system that is down? Try `stat` on the path",
    )


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[_T]) -> AsyncIterator[_T]:
    """The same context manager, entered and exited in a worker thread. It is always exited."""
    value = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        if not await _leave(manager, type(error), error, error.__traceback__):
            raise
    else:
        await _leave(manager, None, None, None)


async def _leave(manager: AbstractContextManager[_T], *error: Any) -> bool | None:
    begun = False
    handled: bool | None = None

    def leave() -> bool | None:
        nonlocal begun
        begun = True
        return manager.__exit__(*error)

    with trio.CancelScope(shield=True):
        try:
            handled = await trio.to_thread.run_sync(leave)
        except BaseException:
            # No thread could be started. Exit here, or a lock would stay held.
            if not begun:
                leave()
            raise
    return handled
