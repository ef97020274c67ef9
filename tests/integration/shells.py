"""`pikaci shell` in a window of its own, and what is typed there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.integration.command import PIKACI, Command
from tests.terminal.screen import Terminal


def open_shell(pikaci: Command, *args: str) -> Terminal:
    """`pikaci shell ARGS`, in a session with a controlling terminal, as a window has."""
    return Terminal(
        ["setsid", "--ctty", "--wait", PIKACI, "shell", *args],
        columns=150,
        lines=50,
        cwd=pikaci.workspace,
        env={**pikaci.env, "TERM": "xterm"},
        real=True,
    )


def at_prompt(terminal: Terminal) -> bool:
    return bool(terminal.shown) and terminal.shown[-1].startswith("(pikaci ")


def types(terminal: Terminal, line: str) -> list[str]:
    """Type a line at the prompt; what it prints, once there is another prompt."""
    terminal.read_until(at_prompt)
    before = len(terminal.shown)
    terminal.press(line.encode() + b"\n")
    terminal.read_until(lambda now: len(now.shown) > before and at_prompt(now))
    return terminal.shown[before:-1]


def kill(terminal: Terminal) -> None:
    """Kill its pikaci, and close the window."""
    setsid = terminal.process.pid
    (child,) = Path(f"/proc/{setsid}/task/{setsid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    terminal.close()
