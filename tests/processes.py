"""pikaci processes that live inside a test, and die there."""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio

_current: ContextVar[Process | None] = ContextVar("process", default=None)
_RealScope = trio.CancelScope
_real_signals = trio.open_signal_receiver


class Process:
    """A process of pikaci's. It is killed with kill -9, or asked to end, as by SIGTERM.

    A killed one runs none of its clean-up: whatever it awaits next is cancelled, also behind a
    shield. So nothing more of it reaches Incus, a journal or a thread, and its locks are free.
    """

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.killed = False
        self._life = _RealScope()
        self._work = _RealScope()
        self._shields: list[trio.CancelScope] = []
        self._signals: trio.MemorySendChannel[int] | None = None

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Live: until `main` returns, or as long as it is let."""
        _current.set(self)
        try:
            with self._life, self._work:
                await main()
        except Exception:
            if not self.killed:
                raise
        finally:
            self.ended.set()

    def terminate(self) -> None:
        """Ask it to end: by a signal, if it listens for them."""
        if self._signals is None:
            self._work.cancel()
        else:
            self._signals.send_nowait(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it; it is gone when `ended` is set, before time passes."""
        self.killed = True
        for scope in self._shields:
            scope.shield = False
        self._life.cancel()

    def shielded(self, scope: trio.CancelScope) -> None:
        """Remember what protects a part of it; nothing does when it was killed."""
        scope.shield = not self.killed
        self._shields.append(scope)

    @contextmanager
    def signals(self) -> Iterator[trio.MemoryReceiveChannel[int]]:
        """What it is sent by `terminate` meanwhile."""
        self._signals, received = trio.open_memory_channel[int](math.inf)
        try:
            yield received
        finally:
            self._signals = None


def _scope(*, shield: bool = False, **options: Any) -> trio.CancelScope:
    scope = _RealScope(**options)
    process = _current.get()
    if shield and process is not None:
        process.shielded(scope)
    else:
        scope.shield = shield
    return scope


@contextmanager
def _signals(*signals: signal.Signals) -> Iterator[AsyncIterator[int]]:
    process = _current.get()
    with _real_signals(*signals) if process is None else process.signals() as received:
        yield received


@contextmanager
def mortal() -> Iterator[None]:
    """In the block, every `Process` can be killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "CancelScope", _scope)
        patch.setattr(trio, "open_signal_receiver", _signals)
        yield
