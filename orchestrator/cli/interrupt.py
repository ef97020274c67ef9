"""Commands that make things in Incus end cleanly when they are told to stop."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
import trio

from orchestrator.cli.signals import Terminals, stop_signals

T = TypeVar("T")


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
    terminals = Terminals()
    with trio.open_signal_receiver(*stop_signals()) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                terminals.drop()
            scope.cancel()
