"""Nix for the tests: it evaluates nix/ with small stand-ins for nixpkgs, which cannot be had here.

Debian's Nix, as root or not, without a daemon or a network, and with a store of the tests' own. It
builds nothing.
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
DEADLINE_SECS = 120.0
# Read-write: the store then has the files whose paths come out.
_EVALUATE = ("nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", "-E")


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

    def evaluate(self, expression: str) -> Any:
        """The value of a Nix expression, whole; a failed evaluation fails the test."""
        done = self._start(*_EVALUATE, expression)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refusal(self, expression: str) -> str:
        """What is said of an expression that cannot be evaluated."""
        done = self._start(*_EVALUATE, expression)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def parse(self, text: str) -> None:
        """Is it Nix? A syntax error fails the test."""
        done = self._start("nix-instantiate", "--parse", "-", stdin=text)
        assert done.returncode == 0, done.stderr

    def _start(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
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
