"""A machine over ssh whose clock is an hour off, either way: jobs there run to their ends.

    PIKACI_HOSTS=hosts.toml python -m tests.power.clock --machine 'path/to/lab' --host lab

`--machine` is that of `tests.power.cuts`; `--host` is its name in the hosts of the caller, who has
pikaci installed. Every job has a limit of two minutes, so that its whole lease is shorter than an
hour. Every row is a line; exits with 1 if anything did not hold.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .machine import SECS, Machine

TREES = "find ~/.local/state/pikaci/trees -mindepth 1 -maxdepth 1 | sort"
GUESTS = "incus list --project pikaci --format csv --columns n"
COUNTS = "for i in $(seq 60); do echo $i; sleep 1; done"


class Caller:
    """pikaci on this machine, with a workspace and a state root of its own."""

    def __init__(self, words: list[str], host: str, base: Path) -> None:
        self.words, self.host, self.base = words, host, base
        (base / "workspace").mkdir()
        (base / "workspace" / "file").write_text("here\n")

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        done = subprocess.run(
            [*self.words, *words], cwd=self.base / "workspace", check=False, timeout=SECS,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            env={**os.environ, "PIKACI_STATE_ROOT": str(self.base / "state")},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def job(self, command: str, output: str) -> str:
        """Run a job there; what is wrong with it."""
        options = ("--host", self.host, "--timeout", "120", "--memory", "128MiB")
        found = self("run", *options, "--", command)
        return "" if found[:2] == (0, output) else f"{found}"


def rows(machine: Machine, pikaci: Caller, word: str) -> Iterator[tuple[str, str]]:
    """Each row, and what is wrong with it."""
    yield "a short job", pikaci.job("cat file", "here\n")
    counted = "".join(f"{number}\n" for number in range(1, 61))
    yield "a job of a minute", pikaci.job(COUNTS, counted)
    trees = machine.says(TREES)
    swept, reaped = pikaci("gc", "--older-than", "1m"), pikaci("reap")
    yield "gc, reap", "" if (swept[0], reaped[0]) == (0, 0) else f"{swept}, {reaped}"
    yield "its tree stays", "" if trees and trees == machine.says(TREES) else f"{trees!r}"
    yield "no guest is left", machine.says(GUESTS).decode()
    checked = pikaci("host", "check", pikaci.host)
    yield "a warning", "" if f"s {word} ours" in checked[1] else f"{checked}"


def main() -> int:
    """Set its clock, look, and set it back."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--machine", required=True, type=shlex.split)
    parser.add_argument("--host", required=True)
    parser.add_argument("--pikaci", default="pikaci", type=shlex.split)
    given = parser.parse_args()
    machine, bad = Machine(given.machine, ""), 0
    for secs, word in ((3600, "ahead of"), (-3600, "behind")):
        machine.says(f"date -s @$(($(date +%s) + {secs}))")
        try:
            with tempfile.TemporaryDirectory() as base:
                caller = Caller(given.pikaci, given.host, Path(base))
                for name, wrong in rows(machine, caller, word):
                    print(f"an hour {word} ours: {name:20} {wrong or 'ok'}", flush=True)
                    bad += bool(wrong)
        finally:
            machine.says(f"date -s @$(($(date +%s) - {secs}))")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
