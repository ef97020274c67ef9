"""Figures of the ways into pikaci: `python -m tests.benchmarks.doors [ROUNDS]`.

How long the examples and the shared tests of library and client are; and from `pikaci shell` to its
prompt, beside a job, in a kept guest and in a new one, each in turn with a plain `incus exec` of a
shell. How long a job takes by `pikaci run` beside plain commands: `make bench`.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until
from tests.integration.shells import at_prompt, open_shell
from tests.terminal.screen import Terminal

ROOT = Path(__file__).parents[2]
SHARED = "tests/service/test_same_verbs.py"
JOBS = f"""
schema = 1
[jobs.runs]
command = "echo begun; {AT_THE_GATE}"
[jobs.fails]
command = "exit 1"
keep = "failure"
"""


def lines_of_examples() -> None:
    for path in sorted((ROOT / "docs" / "examples").iterdir()):
        if path.is_file():
            print(f"{len(path.read_text().splitlines()):5} lines  {path.name}")


def size_of_shared_tests() -> None:
    """How many tests each of the ways has to pass."""
    lines = len((ROOT / SHARED).read_text().splitlines())
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-o", "addopts=", "-q", SHARED]
    listed = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    ways = Counter(re.findall(r"\[(library|fake|client on .*)\]$", listed, re.M))
    print(f"{SHARED}: {lines} lines, tests by way: {dict(ways)}")


def plain_shell(guest: str, pikaci: Command) -> Terminal:
    shell = ["bash", "--noprofile", "--norc", "-i"]
    return Terminal(
        ["incus", "exec", "--project", "pikaci", guest, "--env", "PS1=(pikaci bare) ", "--", *shell],
        columns=150, lines=50, cwd=pikaci.workspace, env={**pikaci.env, "TERM": "xterm"}, real=True,
    )  # fmt: skip


def secs_to_prompt(begin: Callable[[], Terminal]) -> float:
    began = time.perf_counter()
    terminal = begin()
    terminal.read_until(at_prompt)
    taken = time.perf_counter() - began
    # A new guest waits for a minute for who came and went unseen.
    terminal.press(b"sleep 2; exit\n")
    terminal.wait()
    return taken


def prompts(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pikaci-doors-") as base:
        pikaci = Command(Path(base))
        pikaci.write(JOBS)
        pikaci("run", "fails")
        (kept,) = pikaci.leases()
        job = pikaci.run_until("runs: running", "run", "runs")
        wait_until(lambda: len(pikaci.leases()) == 2)
        (beside,) = (name for name in pikaci.leases() if name != kept)
        ways: dict[str, Callable[[], Terminal]] = {
            "incus exec": lambda: plain_shell(beside, pikaci),
            "beside a job": lambda: open_shell(pikaci, "runs"),
            "kept guest": lambda: open_shell(pikaci, "fails"),
            "new guest": lambda: open_shell(pikaci, "fails", "--before"),
        }
        try:
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(rounds + 1):
                for name, begin in ways.items():
                    secs = secs_to_prompt(begin)
                    if number:  # the first round compiles
                        taken[name].append(secs)
        finally:
            pikaci("cancel", "--all")
            job.communicate(SECS)
            pikaci("release", "--all")
    for name, secs in taken.items():
        ratios = (one / bare for one, bare in zip(secs, taken["incus exec"], strict=True))
        print(
            f"to the prompt, {name:13} {1000 * statistics.median(secs):6.0f} ms,"
            f" {statistics.median(ratios):5.1f} of a plain exec; {rounds} rounds"
        )


def main() -> None:
    lines_of_examples()
    size_of_shared_tests()
    prompts(int(sys.argv[1]) if len(sys.argv) > 1 else 10)


if __name__ == "__main__":
    main()
