"""What pikaci costs before it does anything: CPU time of short commands, and memory."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.bench.ours import PIKACI, environment

BARE = "python -c pass"
COMMANDS = ("--help", "run --help", "list", "status")
_JOB = """
import sys
from pathlib import Path
import trio
from orchestrator import JobSpec, Orchestrator, Settings

async def main():
    base = Path(sys.argv[1])
    settings = Settings(workspace=base / "workspace", state_root=base / "memory")
    async with Orchestrator.open(settings) as orchestrator:
        result = await orchestrator.submit_and_wait(JobSpec(command="true"))
        assert result.exit_code == 0, result

trio.run(main)
"""
# Not what `wait4` says: that has the memory of the process that started this one, too.
_MOST = """
status = open("/proc/self/status").read()
print(status.partition("VmHWM:")[2].split()[0])
"""


def start_up(base: Path, rounds: int) -> dict[str, float]:
    """CPU time of commands, in seconds, and of a bare Python: medians of so many rounds.

    The state root of `pikaci run` has the runs that the benchmark made before.
    """
    run = [sys.executable, "-c", PIKACI]
    root = {"PIKACI_STATE_ROOT": str(base / "command")}
    ways = {BARE: [sys.executable, "-c", "pass"]}
    ways |= {f"pikaci {command}": [*run, *command.split()] for command in COMMANDS}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, argv in ways.items():
            used = _usage(argv, environment(base) | root)
            if number:  # the first round compiles
                spent[name].append(used.ru_utime + used.ru_stime)
    return {name: statistics.median(secs) for name, secs in spent.items()}


def memory(base: Path) -> dict[str, float]:
    """The most memory that a process had (RSS), in MiB: a bare Python, and a program with a job."""
    ways = {BARE: _MOST, "a program with one job": _JOB + _MOST}
    found = {}
    for name, code in ways.items():
        argv = [sys.executable, "-c", code, str(base)]
        done = subprocess.run(argv, env=environment(base), stdout=subprocess.PIPE, check=True)
        found[name] = int(done.stdout) / 1024
    return found


def _usage(argv: Sequence[str], variables: dict[str, str]) -> resource.struct_rusage:
    """What one process used, without its children."""
    process = subprocess.Popen(argv, env=variables, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{argv} ended with {process.returncode}")
    return used
