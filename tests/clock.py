"""A clock that jumps when nothing happens, and knows that a busy worker thread is something.

trio's own `MockClock` with `autojump_threshold=0` jumps as soon as all tasks wait. It does not
see worker threads: a journal's commit in a thread would take all the time up to the next deadline.
A threshold above zero only makes that rarer, and costs real time at each jump.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import pytest
import trio
from trio.testing import MockClock


class Busy:
    """Counts the calls that wait for something outside of trio: threads and subprocesses.

    While there is one, `clock` (if any) does not jump.
    """

    def __init__(self, clock: MockClock | None = None) -> None:
        self.calls = 0
        self._clock = clock
        self._waiters = trio.lowlevel.ParkingLot()

    def watched(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same function; its calls are counted."""

        async def watched(*args: Any, **options: Any) -> Any:
            self._count(1)
            try:
                return await call(*args, **options)
            finally:
                self._count(-1)

        return watched

    def _count(self, more: int) -> None:
        self.calls += more
        if self._clock is not None:
            self._clock.autojump_threshold = math.inf if self.calls else 0
        if not self.calls:
            self._waiters.unpark_all()

    async def wait_all_tasks_blocked(self) -> None:
        """As trio's function of this name; a task that waits for such a call is not blocked."""
        await trio.testing.wait_all_tasks_blocked()
        while self.calls:
            await self._waiters.park()
            await trio.testing.wait_all_tasks_blocked()


@contextmanager
def watch_threads(clock: MockClock | None = None) -> Iterator[Busy]:
    """In the block, the calls of worker threads and of subprocesses are counted."""
    busy = Busy(clock)
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (trio.to_thread, "run_sync"),
            (anyio.to_thread, "run_sync"),
            (trio, "run_process"),
        ):
            patch.setattr(module, name, busy.watched(getattr(module, name)))
        yield busy


@contextmanager
def open_clock() -> Iterator[MockClock]:
    """A clock for a test: sleeps take no time, and threads all the time that they need."""
    clock = MockClock(autojump_threshold=0)
    with watch_threads(clock):
        yield clock
