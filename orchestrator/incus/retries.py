"""Waiting with an end: for a daemon that is away, and for an answer that must be known."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from orchestrator.incus.errors import DeadlinePassed, IncusError

_T = TypeVar("_T")

_FIRST_DELAY_SECS = 0.1
_MAX_DELAY_SECS = 2.0
CLEAN_UP_SECS = 60.0


class Patience:
    """The clock and the delays of retries: it starts at a failure, and is reset by a success."""

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self.reset()

    def reset(self) -> None:
        """Something went well: the next failure is the first one."""
        self._give_up: float | None = None
        self._delay = _FIRST_DELAY_SECS

    async def after(self, error: Exception) -> None:
        """Sleep until the next try; raise the error when the first one is `secs` ago."""
        moment = trio.current_time()
        if self._give_up is None:
            self._give_up = moment + self._secs
        if moment >= self._give_up:
            raise error
        await trio.sleep(self._delay * random.uniform(0.5, 1))
        self._delay = min(2 * self._delay, _MAX_DELAY_SECS)


async def retrying(
    call: Callable[[], Awaitable[_T]], *, on: tuple[type[IncusError], ...], secs: float
) -> _T:
    """What `call` returns. While it raises one of `on` it is called again, for `secs` from the
    first failure on.
    """
    patience = Patience(secs)
    while True:
        try:
            return await call()
        except on as error:
            await patience.after(error)


@contextmanager
def limit(what: str, secs: float, *, setting: str) -> Iterator[None]:
    """Bound the block; `DeadlinePassed` names what took too long, and the setting."""
    with trio.move_on_after(secs) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlinePassed(
            f"{what} did not end within {secs:g} s",
            resolution=f"deadlines.{setting} sets the limit",
        )


async def ended_family(process: trio.Process) -> None:
    """End a child that leads a session of its own, with all that it started; a `deliver_cancel`.

    It has time to undo what it did (mmdebstrap ignores TERM, unmounts when its children have
    ended, and leaves all behind after a KILL).
    """
    os.killpg(process.pid, signal.SIGTERM)
    with trio.move_on_after(CLEAN_UP_SECS):
        await process.wait()
        return
    os.killpg(process.pid, signal.SIGKILL)


async def interrupted(secs: float, *events: trio.Event) -> bool:
    """Sleep; True, and no longer, when one of the events is set, now or meanwhile."""
    with trio.move_on_after(max(0.0, secs)) as scope:
        async with trio.open_nursery() as nursery:

            async def when(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            for event in events:
                nursery.start_soon(when, event)
    return not scope.cancelled_caught


async def answered(call: Callable[[], Awaitable[_T]], *, secs: float) -> _T:
    """What `call` returns or raises. A cancellation cuts it short only after `secs` more."""
    done = trio.Event()
    shield = trio.CancelScope(shield=True)
    results: list[_T] = []
    errors: list[Exception] = []

    async def ask() -> None:
        with shield:
            try:
                results.append(await call())
            except Exception as error:
                errors.append(error)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        try:
            await done.wait()
        finally:
            if not done.is_set():
                shield.deadline = trio.current_time() + secs
    if errors:
        raise errors[0]
    return results[0]
