"""Runs a block beside a watch that may end it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from orchestrator.errors import one_error


@asynccontextmanager
async def watched(watch: Callable[[], Awaitable[Exception]]) -> AsyncIterator[None]:
    """Run the block until it ends, or until `watch` returns: the block is cancelled then.

    Raises what `watch` returned, unless the block had ended by then.
    """
    ended = False
    cut: Exception | None = None

    async def run() -> None:
        nonlocal cut
        cut = await watch()
        nursery.cancel_scope.cancel()

    with one_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield
            ended = True
            nursery.cancel_scope.cancel()
    if cut is not None and not ended:
        raise cut
