"""`pikaci run` in a separate process, on the fake Incus: hundreds of jobs in seconds.

    python -m tests.terminal.process run --jobs 4

A job's command is a line of steps: `print TEXT`, `sleep SECS`, `write PATH`, `exit CODE`, between
semicolons.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio

import orchestrator.cli
from orchestrator.cli import run_request
from orchestrator.fake_incus import FakeIncus, GuestCommand, GuestOutcome
from orchestrator.incus import Incus


async def take_steps(command: GuestCommand) -> GuestOutcome:
    """The guest's side."""
    for step in command.text.split(";"):
        verb, _, rest = step.strip().partition(" ")
        if verb == "print":
            command.print(rest.encode().decode("unicode_escape").encode("latin-1") + b"\n")
        elif verb == "sleep":
            await trio.sleep(float(rest))
        elif verb == "write":
            command.write(rest, b"made")
        elif verb == "exit":
            return GuestOutcome(int(rest))
        else:
            raise ValueError(f"there is no step {verb!r}")
    return GuestOutcome()


def main() -> None:
    """Act as `pikaci`, with the fake instead of Incus."""
    on_incus = run_request._run

    async def on_the_fake(*args: Any) -> int:
        async with FakeIncus.open(guest_script=take_steps) as fake:
            with tempfile.TemporaryDirectory() as conf:
                vars(run_request)["open_incus"] = lambda **_: Incus(Path(conf), spawn=fake)
                return await on_incus(*args)

    vars(run_request)["_run"] = on_the_fake
    os.environ.setdefault("PIKACI_STATE_ROOT", tempfile.mkdtemp(prefix="pikaci-terminal-"))
    sys.argv[0] = "pikaci"
    orchestrator.cli.main()


if __name__ == "__main__":
    main()
