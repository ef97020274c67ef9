"""A run that stops at the first job that does not pass, on the fake Incus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from orchestrator import Capacity, JobSpec, Orchestrator, Request, Verdict
from orchestrator.job.handle import RunHandle
from orchestrator.report import run_report
from orchestrator.testing import open_fake
from states import events as ev
from states.job import Job
from states.lifecycle import State
from tests.unit.orchestrator.rig import open_rig
from tests.unit.orchestrator.test_recovery import go_on

SLOW = JobSpec(command="sleep 4000")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    return place


async def submit(
    orchestrator: Orchestrator, workspace: Path, specs: dict[str, JobSpec], **options: Any
) -> RunHandle:
    request = Request(workspace, specs, fail_fast=True, **options)
    return await orchestrator.submit_run(request)


def by_name(jobs: list[Job]) -> dict[str, Job]:
    return {job.name: job for job in jobs}


async def test_running_jobs_are_cancelled_and_queued_ones_skipped(
    workspace: Path, autojump_clock: MockClock
) -> None:
    """Each names the job that failed, and the run's exit code is that job's."""
    specs = {
        "fails": JobSpec(command="sleep 1; exit 3"),
        "runs": SLOW,
        "queued": SLOW,
        "needs": JobSpec(command="true", needs=("runs",)),
    }
    async with open_fake(capacity=Capacity(jobs=2)) as (orchestrator, fake):
        other = await orchestrator.submit_run(
            Request(workspace, {"other": JobSpec(command="true")})
        )
        began = trio.current_time()
        handle = await submit(orchestrator, workspace, specs)
        jobs = by_name(await handle.wait())
        took = trio.current_time() - began
        elsewhere = (await other.wait())[0]
        left = fake.instances()

    verdicts = [jobs[name].verdict for name in specs]
    assert ["failed", "cancelled", "skipped", "skipped"] == verdicts
    assert took < 100
    failed = jobs["fails"].id
    assert ["", failed, failed, failed] == [jobs[name].because for name in specs]
    said = jobs["runs"].failure, jobs["queued"].failure
    assert all(one and "the run stopped at fails, which failed" in one.message for one in said)
    report = run_report(handle.id, list(jobs.values()))
    assert (Verdict.FAILED, 1) == (report.outcome, report.exit_code)
    assert Verdict.PASSED is elsewhere.verdict
    assert not left


@pytest.mark.parametrize(
    ("command", "verdict", "code"),
    [("sleep 9", Verdict.TIMED_OUT, 3), ("exit 1", Verdict.FAILED, 1)],
)
async def test_the_exit_code_is_that_of_the_first(
    workspace: Path, autojump_clock: MockClock, command: str, verdict: Verdict, code: int
) -> None:
    """Whatever its verdict is."""
    specs = {"first": JobSpec(command=command, timeout_secs=5), "runs": SLOW}
    async with open_fake(capacity=Capacity(jobs=2)) as (orchestrator, _):
        handle = await submit(orchestrator, workspace, specs)
        jobs = await handle.wait()

    report = run_report(handle.id, jobs)
    assert (verdict, code) == (report.outcome, report.exit_code)


async def test_a_run_that_passes_is_as_ever(workspace: Path) -> None:
    """And one without the option goes on after a failure."""
    specs = {"a": JobSpec(command="true"), "b": JobSpec(command="true")}
    mixed = {"a": JobSpec(command="false"), "b": JobSpec(command="true")}
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        first = await (await submit(orchestrator, workspace, specs)).wait()
        second = await (await orchestrator.submit_run(Request(workspace, mixed))).wait()

    assert ["passed", "passed"] == [job.verdict for job in first]
    assert ["failed", "passed"] == [job.verdict for job in second]


async def test_many_jobs_that_have_not_begun_are_skipped(workspace: Path) -> None:
    """Also those that are started after the first has failed."""
    specs = {"fails": JobSpec(command="false", priority=1)}
    specs |= {f"job-{number}": JobSpec(command="true") for number in range(60)}
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        jobs = await (await submit(orchestrator, workspace, specs)).wait()

    assert [Verdict.FAILED] + [Verdict.SKIPPED] * 60 == [job.verdict for job in jobs]


@pytest.mark.parametrize("state", [State.SUBMITTED, State.RUNNING])
async def test_a_resumed_run_still_stops(
    tmp_path: Path, autojump_clock: MockClock, state: State
) -> None:
    """The process died after the failure, before it stopped the others."""
    async with open_rig(tmp_path) as rig:
        failing = await rig.submit(JobSpec(command="false"), number=1, fail_fast=True)
        other = await rig.submit(SLOW, number=2, fail_fast=True)
        await failing.run()
        event = rig.entries("r.2")[0]
        assert isinstance(event, ev.Submitted)
        assert event.fail_fast
        if state is State.RUNNING:
            async with trio.open_nursery() as nursery:
                # Without looking at the others, as if they had not failed by then.
                nursery.start_soon(other._live)
                while other.job.state is not State.RUNNING:
                    await trio.sleep(1)
                nursery.cancel_scope.cancel()
        await go_on(rig)
        job = rig.journal.job("r.2")

    expected = Verdict.CANCELLED if state is State.RUNNING else Verdict.SKIPPED
    assert (expected, "r.1") == (job.verdict, job.because)
    assert Verdict.SKIPPED is job.verdict_for_run
