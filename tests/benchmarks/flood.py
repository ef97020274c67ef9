"""A program in the guest that prints 2 GiB in place of an answer: what it costs this process.

python -m tests.benchmarks.flood
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import make_plan
from orchestrator.incus import Incus
from orchestrator.incus.errors import OutputTooLong
from states.spec import JobSpec
from tests.samples import sample_remote_context

GIB = 1 << 30


async def main(base: Path) -> None:
    program = base / "incus"
    program.write_text(f"#!/bin/sh\nexec head -c {2 * GIB} /dev/zero\n")
    program.chmod(0o755)
    incus = Incus(base / "conf", program=str(program))
    plan = make_plan(JobSpec(command="true"), sample_remote_context())
    for effect in (commands.cancel(plan), commands.ready(plan), commands.pull_result(plan)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            await incus.perform(effect)
        except OutputTooLong as error:
            print(error.brief)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"  {effect.name}: peak RSS {before >> 10} -> {after >> 10} MiB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        trio.run(main, Path(directory))
