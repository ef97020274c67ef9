"""pikaci in a directory with a state root of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.journal import open_journal

PIKACI = str(Path(sys.executable).with_name("pikaci"))
# A cold run downloads a toolchain, makes an image of it, and builds.
SECS = 1800


class Workspace:
    """A directory, to be filled by the test, and the commands of pikaci in it."""

    def __init__(self, base: Path) -> None:
        self.directory = base / "workspace"
        self._env = {**os.environ, "PIKACI_STATE_ROOT": str(base / "root"), "TERM": "dumb"}
        self._root = base / "root"

    def call(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """The stdout of a command of pikaci, which must exit with one of the codes."""
        done = subprocess.run(
            [PIKACI, *words],
            cwd=self.directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECS,
        )
        assert done.returncode in codes, f"{words}: {done.returncode}\n{self._tails(done.stderr)}"
        return done.stdout

    def run(self) -> Run:
        """Run all jobs."""
        begun = time.monotonic()
        document = json.loads(self.call("run", "--output", "json", codes=(0, 1)))
        return Run(document, time.monotonic() - begun)

    def clean_up(self) -> None:
        """Delete what pikaci made, images too; no instance may be left."""
        if not (self._root / "journal.sqlite3").exists():
            return
        self.call("gc", "--keep", "0")
        with open_journal(self._root / "journal.sqlite3") as journal:
            assert [] == journal.open_leases()
            owner = f"pikaci.output.owner={journal.owner}"
        listed = subprocess.run(
            ["incus", "image", "list", "--project", "pikaci", owner, "-f", "csv", "-c", "f"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "" == listed.stdout

    def _tails(self, errors: str) -> str:
        logs = sorted(self._root.glob("jobs/*/attempt-*/guest.log"))
        return "\n".join(
            [errors[-2000:], *(log.read_text(errors="replace")[-2000:] for log in logs)]
        )


class Run:
    """What became of the jobs of a run, and how long it took in seconds."""

    def __init__(self, document: Any, secs: float) -> None:
        self.secs = secs
        jobs = {job["name"]: job for job in document["jobs"]}
        self.reused = {name for name, job in jobs.items() if job["state"] == "reused"}
        self.built = set(jobs) - self.reused
        self.not_passed = {
            name: job["message"] for name, job in jobs.items() if job["verdict"] != "passed"
        }
        self._logs = {name: job["log"] for name, job in jobs.items()}

    def log(self, job: str) -> str:
        """What a job printed."""
        log = self._logs[job]
        assert log is not None, f"{job} was not run: {self.not_passed}"
        return Path(log).read_text(errors="replace")
