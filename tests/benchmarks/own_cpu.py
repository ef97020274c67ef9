"""What a job costs pikaci's own process: `python -m tests.benchmarks.own_cpu [JOBS] [--profile]`.

CPU time of this process a job, on the real Incus and one job at a time, without the incus commands
that it starts. `--profile` prints where it went.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path

import trio

from orchestrator import JobSpec, Orchestrator, Settings

WARM_UP = 2


async def main(jobs: int, *, profile: bool) -> None:
    profiler = cProfile.Profile(time.process_time)
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        (base / "workspace").mkdir()
        settings = Settings(workspace=base / "workspace", state_root=base / "state")
        async with Orchestrator.open(settings) as orchestrator:
            for number in range(WARM_UP + jobs):
                if number == WARM_UP:
                    if profile:
                        profiler.enable()
                    began = time.process_time()
                result = await orchestrator.submit_and_wait(JobSpec(command="true"))
                assert result.exit_code == 0, result
            spent = time.process_time() - began
            profiler.disable()
    print(f"{1000 * spent / jobs:.1f} ms of CPU a job, {jobs} jobs")
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(60)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    trio.run(lambda: main(numbers[0] if numbers else 20, profile="--profile" in sys.argv))
