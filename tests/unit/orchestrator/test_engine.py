"""A run of several jobs, on the fake Incus and a real workspace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator import locks
from orchestrator.engine import Request, run_jobs
from orchestrator.gc import collect_garbage
from orchestrator.sweep import sweep
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.outcome import Outcome, Verdict, overall
from states.spec import JobSpec
from tests.samples import sample_shell_job, specs
from tests.unit.orchestrator.rig import Rig, open_rig

WRITABLE = "remote Linux VM backend `incus` does not support writable workspace jobs"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    (made / "file").write_text("1")
    return made


async def run(
    rig: Rig, workspace: Path, specs: Mapping[str, JobSpec], *, parallel: int = 2, run: str = "r"
) -> list[Job]:
    request = Request(workspace=workspace, specs=specs, parallel=parallel)
    await run_jobs(rig.bench, request, run=run, started=lambda snapshot: None)
    return [rig.journal.job(row.id) for row in rig.journal.jobs(run=run)]


async def test_jobs_run_beside_each_other_and_each_has_its_end(
    tmp_path: Path, workspace: Path, jumping_clock: MockClock
) -> None:
    """One that fails, or meets a fault, is no concern of the others."""
    async with open_rig(tmp_path) as rig:
        jobs = await run(
            rig,
            workspace,
            {
                "good": sample_shell_job(command="true"),
                "bad": sample_shell_job(command="exit 3"),
                "lost": sample_shell_job(command="true", image="no/such"),
            },
        )

        assert ["good", "bad", "lost"] == [job.name for job in jobs]
        assert [Verdict.PASSED, Verdict.FAILED, Verdict.INFRASTRUCTURE] == [
            job.verdict for job in jobs
        ]
        assert not rig.fake.instances()
        assert 1 == len({job.snapshot.hash for job in jobs if job.snapshot})


async def test_an_image_is_looked_up_once_a_run(
    tmp_path: Path, workspace: Path, jumping_clock: MockClock
) -> None:
    """However many jobs use it."""
    async with open_rig(tmp_path) as rig:
        calls: list[tuple[str, ...]] = []
        rig.journal.observe(
            lambda entry: calls.append(entry.argv) if isinstance(entry, ev.Called) else None
        )
        await run(
            rig, workspace, {str(n): sample_shell_job(command="true") for n in range(4)}, parallel=4
        )

        assert 4 * 6 == len(calls)
        assert 1 == sum(call.argv[1] == "query" for call in rig.calls)


async def test_no_more_jobs_live_at_once_than_asked_for(
    tmp_path: Path, workspace: Path, jumping_clock: MockClock
) -> None:
    """`parallel` bounds the guests that run."""
    async with open_rig(tmp_path) as rig:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                running = [i for i in rig.fake.instances().values() if i.status == "Running"]
                most = max(most, len(running))
                await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await run(
                rig,
                workspace,
                {str(n): sample_shell_job(command="sleep 10") for n in range(5)},
                parallel=2,
            )
            nursery.cancel_scope.cancel()

        assert 2 == most


async def test_a_cancelled_run_ends_every_job(
    tmp_path: Path, workspace: Path, jumping_clock: MockClock
) -> None:
    """Those that run, and those that still wait for their turn."""
    async with open_rig(tmp_path) as rig:
        slow = {str(n): sample_shell_job(command="sleep 500") for n in range(3)}
        running = 0

        def count(entry: ev.Entry) -> None:
            nonlocal running
            running += isinstance(entry, ev.Running)
            if running == 2:
                scope.cancel()

        rig.journal.observe(count)
        with trio.CancelScope() as scope:
            await run(rig, workspace, slow, parallel=2)

        jobs = [rig.journal.job(row.id) for row in rig.journal.jobs()]
        assert 3 * [State.CANCELLED] == [job.state for job in jobs]
        assert sorted(["running", "running", "submitted"]) == sorted(
            job.failure.phase for job in jobs if job.failure
        )
        assert not rig.fake.instances()


async def test_a_dead_run_s_jobs_and_instances_are_ended_and_a_living_one_s_spared(
    tmp_path: Path, workspace: Path, jumping_clock: MockClock
) -> None:
    """The lock tells them apart: it dies with its process."""
    async with open_rig(tmp_path) as rig:
        dead = await rig.submit(sample_shell_job(command="sleep 900"), run="dead")
        alive = await rig.submit(sample_shell_job(command="sleep 900"), run="alive")
        with locks.hold_run(rig.bench.root.locks, "alive"):
            async with trio.open_nursery() as nursery:
                process = trio.CancelScope()

                async def until_killed() -> None:
                    with process:
                        await dead._live()

                nursery.start_soon(until_killed)
                nursery.start_soon(alive._live)
                while not dead.job.state == alive.job.state == State.RUNNING:
                    await trio.sleep(1)
                process.cancel()  # without the clean-up of `run`: as kill -9 does
                await trio.testing.wait_all_tasks_blocked()
                before = len(rig.fake.instances())
                await sweep(rig.bench)
                left = list(rig.fake.instances())
                nursery.cancel_scope.cancel()

        assert (2, 1) == (before, len(left))
        assert [alive._attempt.plan.instance] == left if alive._attempt else False
        assert State.FAILED == rig.journal.job("dead.1").state
        assert State.RUNNING == rig.journal.job("alive.1").state


async def test_gc_spares_what_lives_and_what_is_new(
    tmp_path: Path, workspace: Path, jumping_clock: MockClock
) -> None:
    """A run that is held stays whole, and with it every snapshot."""
    async with open_rig(tmp_path) as rig:
        for number in range(3):
            (workspace / "file").write_text(str(number))
            await run(rig, workspace, {"a": sample_shell_job(command="true")}, run=f"r{number}")
        root = rig.bench.root
        with locks.hold_run(root.locks, "r0"):
            held = collect_garbage(root, rig.journal, keep=1, dry_run=False)
        free = collect_garbage(root, rig.journal, keep=1, dry_run=False)

        assert (1, 1, 0) == (held.runs, held.jobs, held.snapshots)
        assert (1, 1, 2) == (free.runs, free.jobs, free.snapshots)
        assert ["r2.1"] == os.listdir(root.path / "jobs")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    drawn=st.lists(specs(), max_size=3),
    writable=specs(writable=True),
    at=st.integers(0, 3),
)
def test_one_writable_job_and_nothing_is_touched(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[JobSpec],
    writable: JobSpec,
    at: int,
) -> None:
    """Whatever the jobs beside it: no call of incus, no snapshot, no directory, its own words."""
    base = tmp_path_factory.mktemp("run")
    drawn.insert(at, writable)

    async def main() -> None:
        async with open_rig(base) as rig:
            named = {f"job-{n}": spec for n, spec in enumerate(drawn)}
            jobs = await run(rig, base / "no-such-workspace", named)

            assert [] == rig.calls
            assert [] == os.listdir(rig.bench.root.snapshots)
            assert not (rig.bench.root.path / "jobs").exists()
            assert sum(spec.writable_workspace for spec in drawn) == len(jobs)
            for job in jobs:
                assert (State.REJECTED, 1) == (job.state, len(job.phases))
                assert job.failure is not None
                assert WRITABLE == job.failure.message
            assert Verdict.REJECTED is overall(job.verdict for job in jobs if job.verdict)

    trio.run(main)


def test_outcomes_are_verdicts() -> None:
    """Each outcome has the verdict of its name."""
    assert {outcome.value for outcome in Outcome} <= {verdict.value for verdict in Verdict}
