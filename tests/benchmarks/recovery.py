"""How long a start takes to find and finish what a dead process left, in a large journal.

`python -m tests.benchmarks.recovery [FINISHED [UNFINISHED]]`. Incus is the fake, so what is
timed is pikaci: the guests' commands have ended, their results wait to be collected. A start
on the same journal with nothing unfinished is the floor.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import trio

from orchestrator.capacity import Capacity
from orchestrator.job.queue import Queue
from orchestrator.session.recovery import left, recover
from states.ending import Intent
from states.lifecycle import State
from states.outcome import Outcome
from states.spec import JobSpec
from tests.samples import PATH, sample_event
from tests.unit.orchestrator.rig import Rig, open_rig

AT_ONCE = 8


async def main(finished: int, unfinished: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        async with open_rig(Path(base)) as rig:
            await _finish(rig, finished)
            floor = await _start(rig)
            await _leave(rig, unfinished)
            looked = time.perf_counter()
            found = sum(len(jobs) for jobs in left(rig.context).jobs.values())
            looked = time.perf_counter() - looked
            took = await _start(rig)
            ended = [rig.journal.job(f"left.{n}") for n in range(unfinished)]
            assert unfinished == found
            assert all(job.outcome is Outcome.PASSED for job in ended)
            assert not rig.fake.instances() and not rig.journal.open_leases()
    print(f"{finished} finished, {unfinished} unfinished jobs in the journal; {AT_ONCE} at once")
    print(f"a start with nothing to do   {floor * 1000:8.1f} ms")
    print(f"finding what was left        {looked * 1000:8.1f} ms")
    print(
        f"all of it brought to its end {took * 1000:8.1f} ms, {took / unfinished * 1000:.1f} a job"
    )


async def _finish(rig: Rig, jobs: int) -> None:
    for number in range(jobs):
        job = f"old.{number}"
        life = [sample_event(kind, seq, job=job) for seq, kind in enumerate(PATH, start=1)]
        await rig.journal.append(*life)


async def _leave(rig: Rig, jobs: int) -> None:
    rig.context.intent.rise(Intent.DETACH)
    spec = JobSpec(command="echo done")
    tasks = [await rig.submit(spec, number=number, run="left") for number in range(jobs)]
    for task in tasks:
        while task.job.state is not State.INSTANCE_READY:
            await task._steps.next()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            while task.job.state is not State.RUNNING:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def _start(rig: Rig) -> float:
    again = Rig(rig.context.root.path, rig.journal, rig.fake)
    began = time.perf_counter()
    await recover(again.context, Queue(Capacity(jobs=AT_ONCE)))
    return time.perf_counter() - began


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:]]
    trio.run(main, *counts, *(10_000, 100)[len(counts) :])
