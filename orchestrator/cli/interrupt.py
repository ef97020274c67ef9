"""Commands that make things in Incus end cleanly when they are told to stop."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import trio

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_until_signal(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` to its end and return its result. A signal cancels it, so that it cleans up.

    Raises `click.Abort` when it was cancelled.
    """

    async def guarded() -> T:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                await nursery.start(_cancel_on_signals, scope)
                result = await main()
            nursery.cancel_scope.cancel()
        if scope.cancelled_caught:
            raise click.Abort
        return result

    return trio.run(guarded)


async def _cancel_on_signals(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
) -> None:
    with trio.open_signal_receiver(*SIGNALS) as received:
        task_status.started()
        async for _ in received:
            scope.cancel()
