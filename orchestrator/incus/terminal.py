"""Runs a process on the terminal of this one."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import trio

_END_SECS = 2.0


async def run_on_terminal(argv: Sequence[str], *, env: dict[str, str]) -> int:
    """Run a process with our stdin, stdout and stderr, in our process group; its exit code.

    What is typed and the terminal's size are its own business. When cancelled, it gets TERM, and
    KILL if that does not end it. Its end leaves the terminal with the settings it had before.
    """
    with _same_settings():
        process = await trio.lowlevel.open_process(list(argv), env=env)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(_END_SECS):
                        await process.wait()
                    if process.returncode is None:
                        process.kill()
                        await process.wait()


@contextmanager
def _same_settings() -> Iterator[None]:
    settings = termios.tcgetattr(0) if os.isatty(0) else None
    try:
        yield
    finally:
        if settings is not None:
            with suppress(termios.error):  # the window is closed
                termios.tcsetattr(0, termios.TCSADRAIN, settings)
