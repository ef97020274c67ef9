"""Nix for the tests: it evaluates nix/ with small stand-ins for nixpkgs, which cannot be had here.

Debian's Nix, as root or not, without a daemon or a network. What it builds goes to a store of the
test's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STUBS = Path(__file__).parent / "stubs"
DEADLINE_SECS = 120.0
CONFIGURATION = "build-users-group =\nsubstituters =\nsandbox = false\n"


def place_of(file: Traversable) -> str:
    """Where the stand-in for nixpkgs has a script of the same name and text."""
    return f"/stub/{hashlib.sha256(file.read_bytes()).hexdigest()}-{file.name}"


class Nix:
    """Nix with a store and a state below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._environment = os.environ | {
            "HOME": str(directory),
            "NIX_CONF_DIR": str(directory),
            "NIX_LOG_DIR": str(directory / "log"),
            "NIX_STATE_DIR": str(directory / "state"),
            "NIX_STORE_DIR": str(directory / "store"),
        }
        self._environment.pop("NIX_REMOTE", None)
        (directory / "nix.conf").write_text(CONFIGURATION)

    def evaluate(self, expression: str) -> Any:
        """The value of a Nix expression, whole; a failed evaluation fails the test."""
        return json.loads(
            self._run("nix-instantiate", "--eval", "--strict", "--json", "-E", expression)
        )

    def refusal(self, expression: str) -> str:
        """What is said of an expression that cannot be evaluated."""
        command = ["nix-instantiate", "--eval", "--strict", "--json", "-E", expression]
        done = self._start(command)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def parse(self, text: str) -> None:
        """Is it Nix? A syntax error fails the test."""
        self._run("nix-instantiate", "--parse", "-", stdin=text)

    def build(self, expression: str) -> Path:
        """Build a derivation, and say where it is."""
        return Path(self._run("nix-build", "--no-out-link", "-E", expression).strip())

    def _run(self, *command: str, stdin: str = "") -> str:
        done = self._start(command, stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start(self, command: Any, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            input=stdin,
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECS,
            check=False,
        )
