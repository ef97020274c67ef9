"""The command as a person or a program calls it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

from orchestrator.incus.effect import SILENT_TRIES
from orchestrator.journal import open_journal
from tests import forks
from tests.forks import Forked
from tests.integration.running import SLIM

PIKACI = str(Path(sys.executable).with_name("pikaci"))
SECS = 120
POLL_SECS = 0.02
# What a job's command waits with until `open_gate`.
AT_THE_GATE = "until [ -e /tmp/go ]; do sleep 0.05; done"
# A job file: the guest of one job becomes the image of another.
MAKES_AN_IMAGE = f"""\
schema = 1

[jobs.make]
command = "{SLIM}echo made > /etc/made"
run_as_root = true
output = "image"

[jobs.use]
command = "cat /etc/made"
image = {{ job = "make" }}
"""


def printed(guest: str, *command: str) -> bytes:
    """What a command prints in a guest, which must be something: a busy Incus may lose it all."""
    exec_ = ["incus", "exec", "--project", "pikaci", guest, "--", *command]
    for _ in range(SILENT_TRIES):
        if said := subprocess.run(exec_, capture_output=True, timeout=SECS).stdout:
            break
    return said


def wait_until(condition: Callable[[], Any]) -> None:
    """Return when it is so; it fails the test when it does not come to that."""
    give_up = time.monotonic() + SECS
    while not condition():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(POLL_SECS)


class Command:
    """pikaci in a workspace with a state root of its own."""

    def __init__(self, base: Path) -> None:
        self.workspace = base / "ws"
        self.workspace.mkdir()
        self.root = base / "root"
        self.env = {**os.environ, "PIKACI_STATE_ROOT": str(self.root), "TERM": "dumb"}

    def write(self, text: str) -> None:
        (self.workspace / "pikaci.toml").write_text(text)

    def __call__(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        where = {"cwd": self.workspace, "env": {**self.env, **env}}
        return forks.run(args, timeout=SECS, text=True, **where)

    def start(self, *args: str) -> Forked:
        """Start it as a shell does: in a process group of its own."""
        return Forked(args, cwd=self.workspace, env=self.env, text=True, process_group=0)

    def run_until(self, words: str, *args: str) -> Forked:
        """Start it, and return when a line of its output has the words.

        `run` is told to say what is being done; beside a command's output that goes to stderr.
        """
        verbose = (args[0], "-v", *args[1:]) if args[0] == "run" else args
        started = self.start(*verbose)
        told = started.stderr if "--" in args else started.stdout
        assert told is not None
        watchdog = Timer(SECS, started.kill)
        watchdog.start()
        while words not in (line := told.readline()):
            assert line, "it ended without the words"
        watchdog.cancel()
        return started

    def incus(self, verb: str, *args: str) -> None:
        """What somebody else may do to an instance of ours."""
        command = ["incus", verb, "--project", "pikaci", *args]
        subprocess.run(command, check=True, capture_output=True, timeout=SECS)

    def in_guest(self, *command: str) -> bool:
        """Whether a command succeeds in the only guest there is."""
        (guest,) = self.leases()
        query = ["incus", "exec", "--project", "pikaci", guest, "--", *command]
        return subprocess.run(query, capture_output=True, timeout=SECS).returncode == 0

    def log_lines(self) -> list[bytes]:
        """The only job's log on the host, without its first line."""
        logs = list(self.root.glob("jobs/*/attempt-1/guest.log"))
        return logs[0].read_bytes().splitlines()[1:] if logs else []

    def open_gate(self) -> None:
        """Let the jobs go on that wait at the gate."""
        for guest in self.leases():
            self.incus("exec", guest, "--", "touch", "/tmp/go")

    def leases(self) -> list[str]:
        """The instances in Incus that carry this root's owner key."""
        if not (self.root / "journal.sqlite3").exists():
            return []
        with open_journal(self.root / "journal.sqlite3") as journal:
            owner = f"user.pikaci.owner={journal.owner}"
        listed = subprocess.run(
            ["incus", "list", "local:", owner, "--project", "pikaci", "-f", "csv", "-c", "n"],
            capture_output=True,
            text=True,
            check=True,
            timeout=SECS,
        )
        return listed.stdout.split()
