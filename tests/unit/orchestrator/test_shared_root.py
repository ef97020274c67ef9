"""Programs that use one state root, one after the other or at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator import (
    JobSpec,
    Orchestrator,
    Request,
    Settings,
    UsageError,
    Verdict,
)
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.testing import open_fake
from tests.unit.orchestrator.submitted import PASSES, SLEEPS, started


async def test_detached_jobs_are_the_next_start_s(tmp_path: Path) -> None:
    """They go on in their guests; the next orchestrator of the root follows them to their ends."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    settings = Settings(workspace=workspace, state_root=tmp_path / "root")
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path / "conf", spawn=fake)
        async with Orchestrator.open(settings, incus=incus, exclusive=True) as orchestrator:
            job = await orchestrator.submit(JobSpec(command="echo one; sleep 1; echo two"))
            await started(orchestrator, job.id)
            orchestrator.detach()
        async with Orchestrator.open(settings, incus=incus, exclusive=True) as orchestrator:
            again = orchestrator.job(job.id)
            log = b"".join([chunk async for chunk in again.log()])
            result = await again.wait()

    assert Verdict.PASSED is result.verdict
    assert b"one\ntwo\n" == log.split(b"\n", 1)[1]


async def test_two_programs_share_a_root_and_watch_each_other_s_jobs(tmp_path: Path) -> None:
    """Each cancels the other's too; who would have it alone is told who uses it."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    settings = Settings(workspace=workspace, state_root=tmp_path / "root")
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path / "conf", spawn=fake)
        async with (
            Orchestrator.open(settings, incus=incus) as one,
            Orchestrator.open(settings, incus=incus) as two,
        ):
            job = await one.submit(SLEEPS)
            await started(two, job.id)
            with pytest.raises(UsageError, match="is in use"):
                async with Orchestrator.open(settings, incus=incus, exclusive=True):
                    pass
            await two.job(job.id).cancel(now=True)
            seen = await two.job(job.id).wait()

    assert Verdict.CANCELLED is seen.verdict


async def test_runs_of_one_orchestrator_have_names_and_locks_of_one_session() -> None:
    """So that a process with thousands of runs holds one lock."""
    async with open_fake() as (orchestrator, _):
        workspace = orchestrator.root.path.parent / "workspace"
        runs = [
            await orchestrator.submit_run(Request(workspace, {"a": PASSES, "b": PASSES}))
            for _ in range(3)
        ]
        files = os.listdir(orchestrator.root.locks)
        results = [job for run in runs for job in await run.wait()]

    session = orchestrator.session
    assert [session, f"{session}-2", f"{session}-3"] == [run.id for run in runs]
    assert {session, f"{session}.sock"} == set(files)
    assert {Verdict.PASSED} == {job.verdict for job in results}
    assert [f"{session}-2.1", f"{session}-2.2"] == [job.id for job in runs[1].jobs]
