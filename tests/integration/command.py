"""The command as a person or a program calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Timer

from orchestrator.journal import open_journal

PIKACI = str(Path(sys.executable).with_name("pikaci"))
SECS = 120


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
        return subprocess.run(
            [PIKACI, *args],
            cwd=self.workspace,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECS,
        )

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start it as a shell does: in a process group of its own."""
        return subprocess.Popen(
            [PIKACI, *args],
            cwd=self.workspace,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def run_until(self, words: str, *args: str) -> subprocess.Popen[str]:
        """Start it, and return when a line of its output has the words."""
        started = self.start(*args)
        assert started.stdout is not None
        watchdog = Timer(SECS, started.kill)
        watchdog.start()
        while words not in (line := started.stdout.readline()):
            assert line, "it ended without the words"
        watchdog.cancel()
        return started

    def incus(self, verb: str, *args: str) -> None:
        """What somebody else may do to an instance of ours."""
        command = ["incus", verb, "--project", "pikaci", *args]
        subprocess.run(command, check=True, capture_output=True, timeout=SECS)

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
