"""Tells systemd when the service is ready, when it stops, and that it is alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import trio


def sd_notify(state: str, *, flags: int = 0) -> None:
    """Send a state such as `READY=1`. Without systemd, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(state.encode(), flags, address.replace("@", "\0", 1))


async def tell_watchdog() -> None:
    """Tell systemd twice in each `WatchdogSec` that trio's loop turns; return if there is none.

    Systemd kills a service that is silent for longer, and starts it anew.
    """
    secs = _watchdog_secs()
    while secs:
        # A systemd that does not read now must not hold the loop: the next one gets there.
        sd_notify("WATCHDOG=1", flags=socket.MSG_DONTWAIT)
        await trio.sleep(secs / 2)


def _watchdog_secs() -> float:
    """The service's `WatchdogSec`; 0 if there is none, or it is for another process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0
