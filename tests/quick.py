"""What lets a test live through thousands of steps: no threads to wait for, no disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock

from orchestrator.fake_incus.fake import EPOCH
from orchestrator.job import attempts, end, output, steps
from orchestrator.journal import file, stamp
from orchestrator.session import reaper, recovery

_T = TypeVar("_T")
_make = file._make
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def run_quickly(main: Callable[[Path], Awaitable[_T]]) -> _T:
    """Run `main` with a directory of its own, in a time of its own.

    Its clock jumps as soon as all tasks wait, and the wall clock goes with it. What is for a
    worker thread runs where it is called: such a clock would not know that a thread is busy.
    Journals that are made in it are copies of one.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(dir=_MEMORY) as base,
    ):
        # Its tables take a fifth of the life of a job, and are always the same.
        patch.setattr(file, "_make", lambda path: path.write_bytes(_empty_journal()))
        patch.setattr(trio.to_thread, "run_sync", _run_sync)
        for module in (attempts, end, output, steps, reaper, recovery, stamp):
            patch.setattr(module, "datetime", _WallClock)
        return trio.run(main, Path(base), clock=MockClock(autojump_threshold=0))


@cache
def _empty_journal() -> bytes:
    with tempfile.TemporaryDirectory(dir=_MEMORY) as base:
        path = Path(base) / "journal"
        _make(path)
        return path.read_bytes()


class _WallClock(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return EPOCH + timedelta(seconds=trio.current_time())


async def _run_sync(fn: Callable[..., _T], *args: Any, **options: Any) -> _T:
    # It may be cancelled before the thread begins, and what was begun is seen to its end.
    await trio.lowlevel.checkpoint_if_cancelled()
    result = fn(*args)
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result
