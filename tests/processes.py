"""pikaci processes that live inside a test, and die there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import trio

_current: ContextVar[Process | None] = ContextVar("process", default=None)
_RealScope = trio.CancelScope


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
        """Ask it to end."""
        self._work.cancel()

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


def _scope(*, shield: bool = False, **options: Any) -> trio.CancelScope:
    scope = _RealScope(**options)
    process = _current.get()
    if shield and process is not None:
        process.shielded(scope)
    else:
        scope.shield = shield
    return scope


@contextmanager
def mortal() -> Iterator[None]:
    """In the block, every `Process` can be killed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "CancelScope", _scope)
        yield
