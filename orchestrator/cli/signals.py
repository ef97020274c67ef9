"""Ctrl-C and TERM, for commands that hold jobs."""

from __future__ import annotations

import signal

import click
import trio

from orchestrator.intents import IntentSwitch
from states.ending import Intent


async def cancel_on_signals(
    scope: trio.CancelScope, intent: IntentSwitch, *, task_status: trio.TaskStatus[None]
) -> None:
    """Cancel the scope at the first signal; at the second, want no grace period."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for _ in received:
            if scope.cancel_called:
                intent.rise(Intent.CANCEL_NOW)
            else:
                click.echo("pikaci: ending the jobs; once more for no grace period", err=True)
                scope.cancel()
