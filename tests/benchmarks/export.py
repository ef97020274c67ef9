"""`pikaci trace export` of a run of 1,000 jobs, in every form: `python -m tests.benchmarks.export`.

The jobs are lives of the fake Incus, each with its incus calls.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import trio

from orchestrator import Capacity, JobSpec, Request
from orchestrator.cli.trace import FORMATS
from orchestrator.testing import open_fake

JOBS = 1000
PIKACI = Path(sys.executable).with_name("pikaci")


async def run_and_export() -> None:
    async with open_fake(capacity=Capacity(jobs=8)) as (orchestrator, _):
        root = orchestrator.root.path
        specs = {f"job-{n}": JobSpec(command="echo one; echo two") for n in range(JOBS)}
        began = time.perf_counter()
        run = await orchestrator.submit_run(Request(root.parent / "workspace", specs))
        await run.wait()
        print(f"{JOBS} jobs run on the fake Incus in {time.perf_counter() - began:.1f} s")
        for form in FORMATS:
            began = time.perf_counter()
            command = [PIKACI, "trace", "export", run.id, "--format", form, "--state-root", root]
            done = await trio.to_thread.run_sync(
                lambda command=command: subprocess.run(command, check=True, capture_output=True)
            )
            spent = time.perf_counter() - began
            print(f"{form}: {spent:.2f} s, {len(done.stdout) / 2**20:.2f} MiB")


def main() -> None:
    trio.run(run_and_export)


if __name__ == "__main__":
    main()
