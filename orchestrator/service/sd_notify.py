"""Tells systemd when the service is ready and when it stops (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def sd_notify(state: str) -> None:
    """Send a state such as `READY=1`. Without systemd, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(state.encode(), address.replace("@", "\0", 1))
