"""What an image costs that a job left: making it, reusing it, and a guest from it.

    python -m tests.benchmarks.image_output [GUESTS]

Runs on the real Incus. A toolchain job makes an image, and is reused; then guests from that image
and from its base are created and started in turns. Only their ratio means something.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import trio

from orchestrator import JobSpec, Orchestrator, Request, Settings
from orchestrator.image.derived import delete_images, images_of
from orchestrator.settings import open_incus
from states.job import Job
from states.lifecycle import State
from states.spec import OutputOf

GUESTS = 10
TOOLCHAIN = JobSpec(
    command="echo it runs > /usr/local/bin/tool", run_as_root=True, output="image", sources=()
)
BASE = JobSpec(command="true")
DERIVED = JobSpec(command="true", image=OutputOf("toolchain"))


def secs(job: Job, *states: State) -> float:
    """How long a job was in these states."""
    return sum((phase.duration_ms or 0) / 1000 for phase in job.phases if phase.state in states)


async def main(guests: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(prefix="pikaci-images-") as name:
        workspace = Path(name, "ws")
        workspace.mkdir()
        settings = Settings(workspace=workspace, state_root=Path(name, "root"))
        async with Orchestrator.open(settings) as orchestrator:

            async def run(**specs: JobSpec) -> dict[str, Job]:
                handle = await orchestrator.submit_run(Request(workspace, specs))
                return {job.name: job for job in await handle.wait()}

            try:
                made = (await run(toolchain=TOOLCHAIN))["toolchain"]
                assert made.output is not None, made.message
                begin = time.perf_counter()
                await run(toolchain=TOOLCHAIN)
                reuse = time.perf_counter() - begin
                times: dict[str, list[float]] = {"base": [], "derived": []}
                for _ in range(guests):
                    jobs = await run(base=BASE)
                    jobs |= await run(toolchain=TOOLCHAIN, derived=DERIVED)
                    for kind, found in times.items():
                        found.append(
                            secs(jobs[kind], State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED)
                        )
            finally:
                images = await images_of(open_incus(), orchestrator.journal.owner)
                await delete_images(open_incus(), images)
    base, derived = (statistics.median(times[kind]) for kind in ("base", "derived"))
    print(f"published and tried in {secs(made, State.PUBLISHING):.1f} s")
    print(f"a run that reuses it: {reuse:.2f} s")
    print(f"create and start: {derived:.3f} s, {derived / base:.2f} times the base's {base:.3f} s")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else GUESTS)
