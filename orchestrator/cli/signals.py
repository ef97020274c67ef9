"""Ctrl-C and TERM, for commands that hold jobs."""

from __future__ import annotations

import signal

import click
import trio


async def cancel_on_signals(
    scope: trio.CancelScope, hurry: trio.Event, *, task_status: trio.TaskStatus[None]
) -> None:
    """Cancel the scope at the first signal; the second sets `hurry`."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for _ in received:
            if scope.cancel_called:
                hurry.set()
            else:
                click.echo("pikaci: ending the jobs; once more for no grace period", err=True)
                scope.cancel()
