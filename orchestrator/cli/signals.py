"""The signals that tell a command to stop: INT (Ctrl-C), TERM, and HUP of a closed terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import click
import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.cli.streams import StreamBroken, drop
from states.ending import Intent


def stopping(what: str = "", kill: str = "the jobs") -> str:
    """The message after a signal that stops something."""
    return f"Stopping{what}. Press Ctrl-C again to kill {kill} now."


def tell_stopping() -> None:
    """Tell on stderr, where it can be told, that a signal stops the jobs."""
    with suppress(OSError, StreamBroken):
        click.echo(stopping(), err=True)


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those that stop a command. HUP is none where it was ignored at the start, as by `nohup`."""
    told = (signal.SIGINT, signal.SIGTERM)
    hang_up = signal.SIGHUP
    return told if signal.getsignal(hang_up) is signal.SIG_IGN else (*told, hang_up)


class Terminals:
    """Which of stdout and stderr are terminals; to be made before one can be closed."""

    def __init__(self) -> None:
        self._descriptors = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def drop(self) -> None:
        """Write to them no more: the terminal is gone, and each write would be an error."""
        drop(*self._descriptors)


async def cancel_on_signals(
    scope: trio.CancelScope,
    intent: IntentSwitch,
    told: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    """Cancel the scope at the first signal; at the second, want no grace period.

    `told` tells a person so at the first.
    """
    terminals = Terminals()
    with trio.open_signal_receiver(*stop_signals()) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                terminals.drop()
            if scope.cancel_called:
                intent.rise(Intent.CANCEL_NOW)
                continue
            scope.cancel()
            told()
