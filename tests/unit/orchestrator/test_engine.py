"""A run of several jobs, on the fake Incus and a real workspace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator.capacity import Capacity
from orchestrator.engine import WATCHED_SECS, _watch_to_the_end, run_jobs
from orchestrator.job.handle import JobHandle, RunHandle
from orchestrator.job.queue import Queue
from orchestrator.job.submission import Request
from orchestrator.journal import JournalError
from orchestrator.session.recovery import recover
from states import events as ev
from states.ending import Intent
from states.job import Job
from states.lifecycle import State
from states.outcome import Outcome, Verdict, overall
from states.spec import JobSpec
from tests.samples import sample_shell_job, specs
from tests.unit.orchestrator.rig import Rig, open_rig

if TYPE_CHECKING:
    from orchestrator.job.jobs import Jobs

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
    request = Request(workspace=workspace, specs=specs)
    await run_jobs(rig.context, request, parallel=parallel, run=run)
    return [rig.journal.job(row.id) for row in rig.journal.jobs(run=run)]


async def test_jobs_run_beside_each_other_and_each_has_its_end(
    tmp_path: Path, workspace: Path, autojump_clock: MockClock
) -> None:
    """One that fails, or meets a fault, is no concern of the others."""
    async with open_rig(tmp_path) as rig:
        (image,) = rig.fake.store.images("pikaci").values()
        alien = msgspec.structs.replace(
            image, fingerprint="e" * 64, aliases=["of/another/contract"], properties={}
        )
        rig.fake.store.images("pikaci")[alien.fingerprint] = alien
        jobs = await run(
            rig,
            workspace,
            {
                "good": sample_shell_job(command="true"),
                "bad": sample_shell_job(command="exit 3"),
                "lost": sample_shell_job(command="true", image="of/another/contract"),
            },
        )

        assert ["good", "bad", "lost"] == [job.name for job in jobs]
        assert [Verdict.PASSED, Verdict.FAILED, Verdict.INFRASTRUCTURE] == [
            job.verdict for job in jobs
        ]
        assert not rig.fake.instances()
        assert 1 == len({job.snapshot.hash for job in jobs if job.snapshot})


async def test_an_image_is_looked_up_once_a_run(
    tmp_path: Path, workspace: Path, autojump_clock: MockClock
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

        assert 4 * 4 == len(calls)
        assert 1 == sum("images" in call.argv[2] for call in rig.calls if call.argv[1] == "query")


async def test_no_more_jobs_live_at_once_than_asked_for(
    tmp_path: Path, workspace: Path, autojump_clock: MockClock
) -> None:
    """`parallel` bounds the guests that run."""
    async with open_rig(tmp_path) as rig:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                running = [i for i in rig.fake.instances().values() if i.status == "Running"]
                most = max(most, len(running))
                await trio.sleep(4)

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


async def test_a_job_that_cannot_be_written_of_ends_none_beside_it(
    tmp_path: Path, workspace: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left for the next start; who waits for the run is told."""
    async with open_rig(tmp_path) as rig:
        append = rig.journal.append

        async def refuse(*entries: ev.Entry, **more: Any) -> None:
            if any(isinstance(e, ev.ResultCollected) and e.job == "r.1" for e in entries):
                raise JournalError("no room")
            await append(*entries, **more)

        monkeypatch.setattr(rig.journal, "append", refuse)
        specs = {
            "unlucky": sample_shell_job(command="true"),
            "other": sample_shell_job(command="sleep 50"),
        }
        with pytest.raises(JournalError, match="no room"):
            await run(rig, workspace, specs)
        monkeypatch.undo()
        left = rig.journal.job("r.1")
        await recover(rig.context, Queue(Capacity(jobs=1)))

        assert State.RUNNING is left.state
        assert 2 * [Outcome.PASSED] == [rig.journal.job(id).outcome for id in ("r.1", "r.2")]
        assert not rig.fake.instances()


async def test_a_cancelled_run_ends_every_job(
    tmp_path: Path, workspace: Path, autojump_clock: MockClock
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


async def test_a_cancelled_run_leaves_the_jobs_that_it_took_over(
    tmp_path: Path, workspace: Path, autojump_clock: MockClock
) -> None:
    """They were not asked to end: their guests go on, and the next start follows them."""
    async with open_rig(tmp_path) as rig:
        task = await rig.submit(sample_shell_job(command="sleep 500"), run="dead")
        rig.context.intent.rise(Intent.DETACH)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task.run)
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

        context = Rig(tmp_path, rig.journal, rig.fake).context
        request = Request(workspace, {"a": sample_shell_job(command="sleep 500")})
        with trio.move_on_after(100):
            await run_jobs(context, request, parallel=1, run="r")

        assert State.RUNNING is rig.journal.job("dead.1").state
        assert State.CANCELLED is rig.journal.job("r.1").state
        assert [rig.journal.job("dead.1").instance] == list(rig.fake.instances())


@settings(max_examples=30)
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
            assert [] == os.listdir(rig.context.root.snapshots)
            assert not (rig.context.root.path / "jobs").exists()
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


async def test_a_watch_that_is_stuck_is_cancelled_when_all_jobs_have_ended_or_are_lost(
    autojump_clock: MockClock,
) -> None:
    """Not before the last of them, and whatever the error of a lost one is."""
    ended_at = []

    class Lost(JobHandle):
        async def wait(self) -> Job:
            raise RuntimeError("a bug")

    class Slow(JobHandle):
        async def wait(self) -> Job:
            await trio.sleep(60)
            ended_at.append(trio.current_time())
            return Job()

    async def watch(run: RunHandle) -> None:
        await trio.sleep_forever()

    jobs = tuple(kind(cast("Jobs", None), "r.1") for kind in (Lost, Slow))
    with trio.fail_after(1000), trio.move_on_after(1) as scope:
        await _watch_to_the_end(RunHandle("r", jobs), watch)

    assert scope.cancelled_caught
    assert [trio.current_time() - WATCHED_SECS] == pytest.approx(ended_at)
