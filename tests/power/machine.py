"""A whole machine, by a command with the verbs `ssh COMMAND` (as root), `cut` and `up`."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

SECS = 3600


@dataclass(frozen=True)
class Machine:
    """The machine, and the path of pikaci in it."""

    words: list[str]
    pikaci: str

    def does(self, verb: str) -> None:
        """Cut it, or boot it."""
        subprocess.run([*self.words, verb], check=True, timeout=SECS, stdin=subprocess.DEVNULL)

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command in it."""
        return subprocess.Popen(
            [*self.words, "ssh", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )

    def says(self, command: str, *, check: bool = True) -> bytes:
        """What a command in it prints."""
        done = subprocess.run(
            [*self.words, "ssh", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            check=check, timeout=SECS,
        )  # fmt: skip
        return done.stdout
