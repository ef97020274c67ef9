"""Warm guests of processes that die, on the fake Incus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator import Capacity, JobSpec, Orchestrator, Verdict
from orchestrator.fake_incus import Instance
from orchestrator.journal import open_journal
from orchestrator.session import reaper
from states import events as ev
from states.lifecycle import State
from tests.processes import Process, mortal
from tests.unit.orchestrator.rig import Rig, open_rig, settled, sweep
from tests.unit.orchestrator.warm_guests import ONE, PASSES, until, until_idle


class Mortal(Process):
    """A process with a pool, which has driven a job, and can be killed."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self._context = rig.context
        self._specs, self._asked = trio.open_memory_channel[JobSpec](0)
        self._told, self.jobs = trio.open_memory_channel[str](0)

    async def main(self) -> None:
        root = self._context.root
        workspace = root.path / "workspace"
        workspace.mkdir()
        with open_journal(root.journal) as journal:  # what it did not write dies with it
            context = replace(self._context, journal=journal)
            async with Orchestrator.over(
                context, Capacity(jobs=4), warm=ONE, workspace=workspace
            ) as orchestrator:
                await orchestrator.submit_and_wait(PASSES)
                async for spec in self._asked:
                    await self._told.send((await orchestrator.submit(spec)).id)

    async def submit(self, spec: JobSpec) -> str:
        """Have it submit a job, whose id is returned."""
        await self._specs.send(spec)
        return await self.jobs.receive()

    async def die(self) -> None:
        self.kill()
        await self.ended.wait()


@asynccontextmanager
async def dying(rig: Rig) -> AsyncIterator[tuple[Mortal, Instance]]:
    """A process that has a warm guest, this one."""
    with mortal():
        process = Mortal(rig)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.run, process.main)
            (guest,) = await until_idle(rig.fake)
            yield process, guest
            process.kill()


async def test_what_a_dead_process_left_is_deleted(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """By the next start; no job gets it: nobody knows what happened to it meanwhile."""
    async with open_rig(tmp_path) as rig, dying(rig) as (process, guest):
        await sweep(rig)
        assert [] == await reaper.unneeded(rig.context)
        assert guest.name in rig.fake.instances()

        await process.die()
        assert [guest.name] == [one.instance for one in await reaper.unneeded(rig.context)]
        await sweep(rig)
        assert settled(rig)


@pytest.mark.parametrize("tagged", [False, True])
async def test_a_claim_that_was_broken_off_is_the_job_s(
    autojump_clock: MockClock, tmp_path: Path, tagged: bool
) -> None:
    """A job whose process died then has another attempt; nobody else takes the guest before."""
    async with open_rig(tmp_path) as rig, dying(rig) as (process, guest):
        if tagged:
            rig.fake.late("query PATCH", secs=1)
        else:
            rig.fake.hang("query PATCH")
        job = await process.submit(PASSES)
        await until(lambda: rig.notes(ev.LeaseClaimed, job))
        await trio.sleep(0.1)
        await process.die()
        await trio.sleep(5)

        assert tagged == ("user.pikaci.job" in guest.config)
        assert guest.name not in [one.instance for one in await reaper.unneeded(rig.context)]
        await sweep(rig)
        ended = rig.journal.job(job)
        assert (Verdict.PASSED, 2) == (ended.verdict, ended.attempt)
        assert settled(rig)


async def test_a_job_in_a_warm_guest_survives_its_process(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Its command goes on in the guest, and the next process collects it."""
    async with open_rig(tmp_path) as rig, dying(rig) as (process, guest):
        job = await process.submit(JobSpec(command="sleep 50; echo end"))
        await until(lambda: rig.journal.job(job).state is State.RUNNING)
        await process.die()
        await sweep(rig)

        ended = rig.journal.job(job)
        assert (Verdict.PASSED, 1, guest.name) == (ended.verdict, ended.attempt, ended.instance)
        assert settled(rig)
