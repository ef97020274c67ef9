"""Bounded waits: for a daemon that is down, and for an answer that must be known."""

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


class RetryClock:
    """The clock of retries: it starts at the first failure, and a success resets it."""

    def __init__(self, secs: float) -> None:
        self._secs = secs
        self.reset()

    def reset(self) -> None:
        """Record a success: the next failure counts as the first."""
        self._give_up: float | None = None
        self._delay = _FIRST_DELAY_SECS

    async def after(self, error: Exception) -> None:
        """Sleep until the next try; raise `error` when the first failure is `secs` ago."""
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
    """Return what `call` returns; retry it on errors `on`, for `secs` from the first failure."""
    clock = RetryClock(secs)
    while True:
        try:
            return await call()
        except on as error:
            await clock.after(error)


@contextmanager
def limit(what: str, secs: float, *, setting: str) -> Iterator[trio.CancelScope]:
    """Limit the block's time; `DeadlinePassed` names what took too long, and the setting.

    The block may change the deadline of the scope that it gets.
    """
    with trio.move_on_after(secs) as scope:
        yield scope
    if scope.cancelled_caught:
        raise DeadlinePassed(
            f"{what} did not end within {secs:g} s",
            resolution=f"deadlines.{setting} sets the limit",
        )


async def stop_family(process: trio.Process) -> None:
    """Stop a child that leads its own session, and its descendants; a `deliver_cancel` for trio.

    TERM first, and time to clean up: mmdebstrap ignores TERM but unmounts when its children have
    ended; after a KILL it leaves everything mounted.
    """
    os.killpg(process.pid, signal.SIGTERM)
    with trio.move_on_after(CLEAN_UP_SECS):
        await process.wait()
        return
    os.killpg(process.pid, signal.SIGKILL)


async def finish_despite_cancel(
    call: Callable[[], Awaitable[_T]],
    *,
    secs: float,
    hurry: Callable[[], Awaitable[None]] = trio.sleep_forever,
) -> _T:
    """Return or raise what `call` does; a cancellation stops it only after `secs` more.

    Or when `hurry` returns, which is called at the cancellation.
    """
    done = trio.Event()
    shield = trio.CancelScope(shield=True)
    hurrying = trio.CancelScope(shield=True)
    results: list[_T] = []
    errors: list[Exception] = []

    async def ask() -> None:
        with shield:
            try:
                results.append(await call())
            except Exception as error:
                errors.append(error)
        done.set()
        hurrying.cancel()

    async def stop_sooner() -> None:
        with hurrying:
            await hurry()
            shield.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        try:
            await done.wait()
        finally:
            if not done.is_set():
                shield.deadline = trio.current_time() + secs
                nursery.start_soon(stop_sooner)
    if errors:
        raise errors[0]
    return results[0]
