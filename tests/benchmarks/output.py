"""From a guest's line to a person: how old it is, and what the command line adds to a job.

    python -m tests.benchmarks.output [JOBS]

Runs on the real Incus. First a command prints the time, line by line, and each line's age is taken
where `pikaci run` prints it. Then `pikaci run -- true`, from its start to its end, and the same job
through the library take turns; only their ratio means something.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from orchestrator import Orchestrator, Settings
from states.spec import JobSpec

JOBS = 10
LINES = 200
CLOCK = f"for i in $(seq {LINES}); do date +%s.%N; sleep 0.02; done"
PIKACI = str(Path(sys.executable).with_name("pikaci"))


def ages(workspace: Path, root: Path) -> list[float]:
    """How old each line is when it comes, in milliseconds."""
    run = subprocess.Popen(
        [PIKACI, "run", "--state-root", str(root), "--", CLOCK],
        cwd=workspace,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    found = [(time.time() - float(line)) * 1000 for line in run.stdout]
    assert run.wait() == 0
    assert len(found) == LINES
    return found


def by_command(workspace: Path, root: Path) -> float:
    """Seconds of `pikaci run -- true`, its process included."""
    begin = time.perf_counter()
    argv = [PIKACI, "run", "--state-root", str(root), "--", "true"]
    subprocess.run(argv, cwd=workspace, check=True)
    return time.perf_counter() - begin


async def main(jobs: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(prefix="pikaci-output-") as name:
        workspace, root, other = (Path(name, part) for part in ("ws", "root", "other"))
        workspace.mkdir()
        found = sorted(ages(workspace, root))
        print(
            f"a line's age: median {statistics.median(found):.0f} ms, p95 {found[-LINES // 20]:.0f} ms"
        )
        commands, library = [], []
        settings = Settings(workspace=workspace, state_root=other)
        async with Orchestrator.open(settings) as orchestrator:
            await orchestrator.submit_and_wait(JobSpec(command="true"))
            for _ in range(jobs):
                begin = time.perf_counter()
                await orchestrator.submit_and_wait(JobSpec(command="true"))
                library.append(time.perf_counter() - begin)
                commands.append(await trio.to_thread.run_sync(by_command, workspace, root))
        ours, base = statistics.median(commands), statistics.median(library)
        print(
            f"pikaci run -- true: {ours:.2f} s, {ours / base:.2f} times the library's {base:.2f} s"
        )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else JOBS)
