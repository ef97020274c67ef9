"""A program in a pseudo-terminal, whose screen can be read back."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyte

from tests.forks import ON_THE_FAKE, Forked

SECS = 60
HISTORY = 5000


class Terminal:
    """A running program and what it shows. Everything it wrote is in `written`.

    The program is pikaci on the fake Incus; with `real`, `args` is a command line of any program.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        columns: int,
        lines: int,
        cwd: Path,
        env: Mapping[str, str],
        real: bool = False,
    ) -> None:
        self.written = b""
        self.screen = pyte.HistoryScreen(columns, lines, history=HISTORY)
        self.screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        self._set_size(columns, lines)
        begin: Callable[..., Any] = (
            subprocess.Popen if real else partial(Forked, program=ON_THE_FAKE)
        )
        self.process = begin(
            args,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", **env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    @property
    def shown(self) -> list[str]:
        """The lines on the screen, without empty ones at the bottom."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def all_lines(self) -> list[str]:
        """Also lines that have scrolled off the top."""
        top = [
            "".join(line[column].data for column in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return [*top, *self.shown]

    def read_until(self, condition: Callable[[Terminal], bool]) -> None:
        """Let the program write until its screen meets a condition."""
        give_up = time.monotonic() + SECS
        while not condition(self):
            left = give_up - time.monotonic()
            assert left > 0, "the screen never was so:\n" + "\n".join(self.shown)
            if select.select([self._master], [], [], min(left, 0.2))[0] and not self._read():
                assert condition(self), "it ended first:\n" + "\n".join(self.shown)

    def wait(self) -> int:
        """Let the program run to its end, and return its exit code."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(SECS)

    def resize(self, columns: int, lines: int) -> None:
        """Change the terminal's size, as a window manager does."""
        self._set_size(columns, lines)
        self.screen.resize(lines, columns)

    def close(self) -> None:
        """Close the window."""
        os.close(self._master)

    def press(self, keys: bytes) -> None:
        """Type something; Ctrl-C is a byte like any other."""
        os.write(self._master, keys)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False  # the other end is closed
        self.written += data
        self._stream.feed(data)
        return bool(data)
