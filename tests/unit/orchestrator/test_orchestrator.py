"""The library, on the fake Incus."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from orchestrator import (
    Capacity,
    JobSpec,
    Orchestrator,
    QueueFull,
    Request,
    Settings,
    Snapshot,
    SpecError,
    UsageError,
    Verdict,
)
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.incus.errors import DaemonUnreachable
from orchestrator.job import publisher as publishing
from orchestrator.job.backlog import Backlog
from orchestrator.journal import Journal, JournalError, JournalUnwritable
from orchestrator.session.upkeep import EVERY_SECS
from orchestrator.testing import open_fake
from states import events as ev
from states.lifecycle import State
from states.spec import Mount
from tests.clock import Busy

PASSES = JobSpec(command="echo one; echo two")
SLEEPS = JobSpec(command="sleep 10000", timeout_secs=100_000)


async def started(orchestrator: Orchestrator, job: str) -> None:
    """Return when the job's command runs."""
    async for event in orchestrator.job(job).events():
        if isinstance(event, ev.Running):
            return


async def test_a_job_is_durable_when_it_is_submitted() -> None:
    """The journal has it before anything is done for it."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)

        assert [ev.Submitted] == [type(e) for _, e in orchestrator.journal.entries(job.id)]
        result = await job.wait()

    assert (Verdict.PASSED, 0) == (result.verdict, result.exit_code)


async def test_events_come_from_the_first_to_the_last_whenever_one_asks() -> None:
    """Also after the job has ended; each once, in order."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        live = [event.seq async for event in job.events()]
        again = [event.seq async for event in job.events()]

    assert [1, 2, 3, 4, 5, 6] == live == again


async def test_a_slow_reader_loses_nothing_and_blocks_nobody() -> None:
    """It is still at the first event when the job has ended."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        events = job.events()
        first = await anext(events)
        await job.wait()
        rest = [event.seq async for event in events]

    assert 1 == first.seq
    assert [2, 3, 4, 5, 6] == rest


async def test_entries_go_on_where_a_reader_left_off() -> None:
    """By their numbers in the journal; behind the last, the stream of an ended job is over."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        while orchestrator.drives(job.id):  # notes of its instance's end come behind its own
            await orchestrator.arrivals.entry(job.id).wait()
        numbers = [number async for number, _ in job.entries()]
        later = [number async for number, _ in job.entries(after=numbers[3])]
        none = [number async for number, _ in job.entries(after=numbers[-1] + 1000)]

    assert sorted(numbers) == numbers
    assert numbers[4:] == later
    assert [] == none


async def test_a_log_is_followed_to_its_end() -> None:
    """From any byte."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        whole = b"".join([chunk async for chunk in job.log()])
        tail = b"".join([chunk async for chunk in job.log(after=len(whole) - 4)])

    assert b"one\ntwo\n" == whole.split(b"\n", 1)[1]
    assert b"two\n" == tail


async def test_a_key_is_submitted_once() -> None:
    """The same job comes back, ended or not, and other jobs under the key are refused."""
    async with open_fake() as (orchestrator, _):
        first = await orchestrator.submit(PASSES, key="build 7")
        again = await orchestrator.submit(PASSES, key="build 7")
        await first.wait()
        ended = await orchestrator.submit_nowait(PASSES, key="build 7")
        other = await orchestrator.submit(PASSES, key="build 8")

        assert first.id == again.id == ended.id != other.id
        with pytest.raises(UsageError, match="another submission"):
            await orchestrator.submit(JobSpec(command="false"), key="build 7")
        assert 2 == len(orchestrator.journal.jobs())


async def test_a_key_that_two_submit_at_once_is_submitted_once() -> None:
    """Neither of them is told of an error."""
    async with open_fake() as (orchestrator, _):
        ids = []

        async def submit() -> None:
            ids.append((await orchestrator.submit(PASSES, key="k")).id)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit)
            nursery.start_soon(submit)

        assert 2 == len(ids)
        assert 1 == len(set(ids)) == len(orchestrator.journal.jobs())


async def test_jobs_of_a_run_begin_in_its_order(tmp_path: Path) -> None:
    """Tasks that are started together begin in any order; slots are given in the file's."""
    begun: list[str] = []

    def on_entry(entry: ev.Entry) -> None:
        if isinstance(entry, ev.ArtifactsReset):
            begun.append(entry.job)

    names = [f"{number:02}" for number in range(20)]
    async with open_fake(capacity=Capacity(jobs=1), on_entry=on_entry) as (orchestrator, _):
        run = await orchestrator.submit_run(Request(tmp_path, dict.fromkeys(names, PASSES)))

    assert [job.id for job in run.jobs] == begun


async def test_the_block_ends_when_its_jobs_have() -> None:
    """As a nursery's does."""
    async with open_fake() as (orchestrator, fake):
        jobs = [await orchestrator.submit(PASSES) for _ in range(3)]
        statistics = orchestrator.statistics

    assert {Verdict.PASSED: 3} == statistics().ended
    assert 0 == statistics().running == statistics().queued
    assert 3 == len({job.id for job in jobs})
    assert not fake.instances()


async def test_an_error_in_the_block_ends_the_jobs_and_is_raised_as_it_is() -> None:
    """Not in a group."""
    verdicts: list[ev.Entry] = []
    with pytest.raises(KeyError, match="mine"):
        async with open_fake(on_entry=verdicts.append) as (orchestrator, _):
            job = await orchestrator.submit(SLEEPS)
            await started(orchestrator, job.id)
            raise KeyError("mine")

    assert isinstance([e for e in verdicts if isinstance(e, ev.Event)][-1], ev.Cancelled)


async def test_a_cancelled_block_ends_its_jobs() -> None:
    """Cancelling by scope: nothing of them lives when the scope is left."""
    seen: list[ev.Entry] = []
    with trio.CancelScope() as scope:
        async with open_fake(on_entry=seen.append) as (orchestrator, _):
            job = await orchestrator.submit(SLEEPS)
            await started(orchestrator, job.id)
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert isinstance([e for e in seen if isinstance(e, ev.Event)][-1], ev.Cancelled)


async def test_a_cancelled_wait_leaves_the_job_alone() -> None:
    """Who waits is a reader."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(JobSpec(command="sleep 1"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await job.wait()

        assert Verdict.PASSED is (await job.wait()).verdict


async def test_cancelling_a_job_returns_when_it_is_dead() -> None:
    """One that runs, one that waits for its turn, and one that has ended."""
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        done = await orchestrator.submit(PASSES)
        await done.wait()
        running = await orchestrator.submit(SLEEPS)
        waiting = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        for job in (waiting, running, done):
            await job.cancel(reason="not needed", now=True)

        assert [State.CANCELLED] * 2 == [job.job.state for job in (running, waiting)]
        assert Verdict.PASSED is done.job.verdict
        failure = running.job.failure
        assert failure is not None
        assert "cancelled: not needed" == failure.message


async def test_what_waits_says_for_what(busy: Busy) -> None:
    """A place, or its turn behind another."""
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        second = await orchestrator.submit(PASSES)
        third = await orchestrator.submit(PASSES)
        await busy.wait_all_tasks_blocked()

        assert "" == running.waits_for()
        assert "a slot: 1 of 1 are taken" == second.waits_for()
        assert third.waits_for().startswith(f"its turn; {second.id} is next")
        statistics = orchestrator.statistics()
        assert (2, 1) == (statistics.queued, statistics.running)
        await running.cancel(now=True)


async def test_what_was_waited_for_is_noted(autojump_clock: MockClock) -> None:
    """A place, and who made way; a job that did not wait has no such note."""
    async with open_fake(capacity=Capacity(jobs=1)) as (orchestrator, _):
        first = await orchestrator.submit(JobSpec(command="sleep 10"))
        second = await orchestrator.submit(PASSES)
        await second.wait()
        notes = [
            (job.id, note.what, note.after)
            for job in (first, second)
            for _, note in orchestrator.journal.entries(job.id)
            if isinstance(note, ev.Waited) and note.what is ev.WaitFor.PLACE
        ]

    assert [(second.id, ev.WaitFor.PLACE, first.id)] == notes


async def test_a_full_queue_makes_submitters_wait_or_refuses_them(busy: Busy) -> None:
    """`submit` goes on when a job has begun; `submit_nowait` is told at once."""
    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=1) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        await orchestrator.submit(PASSES)
        with pytest.raises(QueueFull):
            await orchestrator.submit_nowait(PASSES)
        assert 2 == len(orchestrator.journal.jobs())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(orchestrator.submit, PASSES)
            await busy.wait_all_tasks_blocked()
            assert 2 == len(orchestrator.journal.jobs())
            await running.cancel(now=True)

        assert 3 == len(orchestrator.journal.jobs())


@pytest.mark.parametrize("apart", [True, False])
async def test_submitters_that_wait_find_the_queue_bounded(
    apart: bool, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each knows of those before it, also while they publish; and they get room in their order."""
    got_room: list[str] = []
    reserve = Backlog.reserve

    async def noted(backlog: Backlog, jobs: int, *, wait: bool) -> None:
        await reserve(backlog, jobs, wait=wait)
        got_room.append(trio.lowlevel.current_task().name)

    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=3) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        monkeypatch.setattr(Backlog, "reserve", noted)

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(orchestrator.submit, PASSES, name=f"job-{number}")
                if apart:
                    await busy.wait_all_tasks_blocked()
            await busy.wait_all_tasks_blocked()
            assert 1 + 3 == len(orchestrator.journal.jobs())
            with pytest.raises(QueueFull):
                await orchestrator.submit_nowait(PASSES)
            await running.cancel(now=True)

    in_order = [f"job-{number}" for number in range(9)]
    assert in_order == (got_room if apart else sorted(got_room))


async def test_who_does_not_wait_does_not_overtake_a_run_that_does(busy: Busy) -> None:
    """A large run would else never find room."""
    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=2) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        await orchestrator.submit(PASSES)
        workspace = orchestrator.root.path.parent / "workspace"
        large = Request(workspace, {"one": PASSES, "two": PASSES})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(orchestrator.submit_run, large)
            await busy.wait_all_tasks_blocked()
            with pytest.raises(QueueFull):
                await orchestrator.submit_nowait(PASSES)
            await running.cancel(now=True)

        assert 4 == len(orchestrator.journal.jobs())


async def test_a_submission_that_fails_gives_its_room_back() -> None:
    """Or is cancelled: the next one has it."""
    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=1) as (orchestrator, _):
        running = await orchestrator.submit(SLEEPS)
        await started(orchestrator, running.id)
        with trio.CancelScope() as scope:
            scope.cancel()
            await orchestrator.submit(PASSES)
        missing = Snapshot("0" * 64, orchestrator.root.snapshots / "none", None, None)
        with pytest.raises(UsageError, match="no longer exists"):
            await orchestrator.submit(PASSES, snapshot=missing)
        await orchestrator.submit_nowait(PASSES)
        await running.cancel(now=True)

        assert 2 == len(orchestrator.journal.jobs())


async def test_a_refused_spec_is_recorded_and_told() -> None:
    """In its own words, and nothing else was touched."""
    async with open_fake() as (orchestrator, _):
        with pytest.raises(SpecError, match="does not support writable workspace jobs"):
            await orchestrator.submit(JobSpec(command="true", writable_workspace=True))

        (row,) = orchestrator.journal.jobs()
        assert Verdict.REJECTED is orchestrator.job(row.id).job.verdict
        assert [] == os.listdir(orchestrator.root.snapshots)


async def test_a_job_too_big_for_the_host_is_refused() -> None:
    """It would wait for ever."""
    capacity = Capacity(jobs=2, cpus=4, memory=2**30)
    async with open_fake(capacity=capacity) as (orchestrator, _):
        with pytest.raises(SpecError, match="more than all jobs together may use"):
            await orchestrator.submit(JobSpec(command="true", memory="2GiB"))

        assert [] == orchestrator.journal.jobs()


async def test_without_a_daemon_nothing_is_submitted() -> None:
    """The error is the daemon's, by itself."""
    async with open_fake() as (orchestrator, fake):
        fake.kill_daemon()
        with pytest.raises(DaemonUnreachable):
            await orchestrator.submit(PASSES)

        assert [] == orchestrator.journal.jobs()


async def test_jobs_of_one_snapshot_see_one_tree() -> None:
    """However the workspace changes meanwhile."""
    async with open_fake() as (orchestrator, _):
        snapshot = await orchestrator.snapshot()
        root = orchestrator.root.path
        (root.parent / "workspace" / "new").touch()
        one = await orchestrator.submit(PASSES, snapshot=snapshot)
        two = await orchestrator.submit(PASSES)

        assert snapshot.hash == getattr(one.job.snapshot, "hash", "")
        assert snapshot.hash != getattr(two.job.snapshot, "hash", "")


async def test_a_fault_of_the_journal_is_raised_for_who_waits_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The block, and the jobs beside it, go on."""
    async with open_fake() as (orchestrator, _):
        append = orchestrator.journal.append

        async def refuse(*entries: ev.Entry, **more: Any) -> None:
            if any(isinstance(e, ev.Running) and e.job == unlucky.id for e in entries):
                raise JournalError("no room")
            await append(*entries, **more)

        monkeypatch.setattr(orchestrator.journal, "append", refuse)
        unlucky = await orchestrator.submit(PASSES)
        other = await orchestrator.submit(PASSES)
        with pytest.raises(JournalError, match="no room"):
            await unlucky.wait()

        assert Verdict.PASSED is (await other.wait()).verdict


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


async def test_host_directories_are_real_or_refused(tmp_path: Path) -> None:
    """A path that is relative, or of nothing, is told before anything is submitted."""
    (tmp_path / "deps").mkdir()
    (tmp_path / "link").symlink_to("deps")
    async with open_fake() as (orchestrator, _):
        for source in ("deps", str(tmp_path / "nothing")):
            with pytest.raises(SpecError, match="is not a directory on this host") as caught:
                await orchestrator.submit(
                    JobSpec(command="true", mounts=(Mount(source, "/mnt/data"),))
                )
            assert "mounts[0].source" == caught.value.key
        assert [] == orchestrator.journal.jobs()
        job = await orchestrator.submit(
            JobSpec(command="true", workspace_deps=str(tmp_path / "link"))
        )

        assert str(tmp_path / "deps") == getattr(job.job.spec, "workspace_deps", "")


async def test_a_directory_that_controls_the_host_is_refused_before_anything_is_submitted(
    tmp_path: Path,
) -> None:
    """The state root is one, by whatever name; so is what contains it."""
    async with open_fake() as (orchestrator, _):
        root = orchestrator.root.path
        (tmp_path / "link").symlink_to(root)
        for source in (root, root / "snapshots", root.parent, tmp_path / "link"):
            with pytest.raises(SpecError, match="could control this host") as caught:
                await orchestrator.submit(
                    JobSpec(command="true", mounts=(Mount(str(source), "/mnt/data"),))
                )
            assert "mounts[0].source" == caught.value.key
        assert [] == orchestrator.journal.jobs()


async def test_jobs_mount_what_the_settings_allow(tmp_path: Path) -> None:
    """And nothing else, by any key."""
    (tmp_path / "allowed/deep").mkdir(parents=True)
    async with open_fake(allow_mounts=(tmp_path / "allowed",)) as (orchestrator, _):
        spec = JobSpec(command="true", nix_store=str(tmp_path / "allowed/deep"))
        job = await orchestrator.submit(spec)
        with pytest.raises(
            SpecError, match="is not a directory that jobs of this service may mount"
        ):
            await orchestrator.submit(JobSpec(command="true", nix_store=str(tmp_path)))

        assert Verdict.PASSED == (await job.wait()).verdict


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("true", "str is not a JobSpec"),
        (JobSpec(command="true", timeout_secs="5"), "timeout_secs is '5'"),
        (JobSpec(command="true", cpus=10_000), "cpus is 10000"),
        (JobSpec(command="true", memory="much"), "memory is 'much'"),
        (JobSpec(command="true", cpus=0, writable_workspace=True), "cpus is 0"),
        (JobSpec(command="\udcff"), "command is not Unicode"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_no_spec_harms_no_journal(spec: object, words: str) -> None:
    """Constructors look at nothing; not even a refusal of such a spec could be read again."""
    async with open_fake() as (orchestrator, _):
        with pytest.raises(SpecError) as caught:
            await orchestrator.submit(spec)  # type: ignore[arg-type]

        assert str(caught.value).startswith(words)
        assert [] == orchestrator.journal.jobs()


async def test_an_entry_that_nobody_could_read_again_is_not_written(tmp_path: Path) -> None:
    """Whoever brings it hears of it."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        bad = ev.Warned(job=job.id, message=5, at=job.job.phases[0].entered_at, monotonic=0.0)  # type: ignore[arg-type]
        with pytest.raises(Exception, match="Expected `str`"):
            await orchestrator.journal.append(bad)

        assert Verdict.PASSED is (await job.wait()).verdict


@pytest.mark.parametrize("workspace", ["nowhere", "file", "x" * 3000, "a\0b", "loop", b"\xff"])
async def test_a_workspace_that_is_none_is_said_so(workspace: str | bytes, tmp_path: Path) -> None:
    """Whatever is wrong with its name."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    async with open_fake() as (orchestrator, _):
        with pytest.raises(UsageError, match=r"no such directory|not Unicode"):
            await orchestrator.submit(PASSES, workspace=tmp_path / os.fsdecode(workspace))

        assert [] == orchestrator.journal.jobs()


@pytest.mark.parametrize("path", ["/", "//", "/.", "/usr/..", "root"])
async def test_the_whole_file_system_is_no_workspace(path: str, tmp_path: Path) -> None:
    """By whatever name."""
    (tmp_path / "root").symlink_to("/")
    async with open_fake() as (orchestrator, _):
        with pytest.raises(UsageError, match="the whole file system"):
            await orchestrator.submit(PASSES, workspace=tmp_path / path)


async def test_settings_are_of_where_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may go elsewhere; the journal tells of real paths."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    monkeypatch.chdir(tmp_path)
    settings = Settings(workspace="link", state_root="root")  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path / "conf", spawn=fake)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            job = await orchestrator.submit_and_wait(PASSES)

    assert str((tmp_path / "tree").resolve()) == job.workspace
    assert (tmp_path / "root" / "journal.sqlite3").exists()


async def test_one_key_is_one_run_also_for_two_that_submit_other_jobs_at_once() -> None:
    """One of them is told that the key is taken, whatever its jobs are called."""
    async with open_fake() as (orchestrator, _):
        errors: list[UsageError] = []

        async def submit(name: str) -> None:
            try:
                await orchestrator.submit(PASSES, name=name, key="nightly")
            except UsageError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, "one")
            nursery.start_soon(submit, "two")

        assert ["the key 'nightly' was used for another submission"] == [e.brief for e in errors]
        assert 1 == len(orchestrator.journal.jobs())


async def test_a_closed_orchestrator_says_that_it_is(tmp_path: Path) -> None:
    """And not that its journal is damaged."""
    (tmp_path / "tree").mkdir()
    settings = Settings(workspace=tmp_path / "tree", state_root=tmp_path / "root")
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path / "conf", spawn=fake)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            job = await orchestrator.submit(PASSES)
    with pytest.raises(UsageError, match="the orchestrator is closed"):
        await orchestrator.submit(PASSES)
    with pytest.raises(JournalError, match="the journal is not open"):
        await job.wait()


def test_asyncio_is_told_of_the_portal(tmp_path: Path) -> None:
    """Whoever opens an orchestrator there has not read the page yet."""

    async def main() -> None:
        async with Orchestrator.open(Settings(workspace=tmp_path, state_root=tmp_path / "root")):
            pass

    with pytest.raises(UsageError, match="in a trio program") as caught:
        asyncio.run(main())
    assert "portal" in caught.value.resolution


async def test_to_cancel_what_is_not_there_is_an_error() -> None:
    """A mistyped id would go unnoticed."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        with pytest.raises(UsageError, match="no job 'nonsense'"):
            await orchestrator.cancel([job.id, "nonsense"])

        assert Verdict.PASSED is (await job.wait()).verdict


async def test_a_job_that_was_forgotten_is_not_there() -> None:
    """`pikaci gc` may take it while somebody has it in hand."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        await job.wait()
        while orchestrator.drives(job.id):
            await orchestrator.arrivals.entry(job.id).wait()
        orchestrator.journal.forget([job.id])

        assert [] == [event async for event in job.events()]
        with pytest.raises(UsageError, match="no job"):
            await job.wait()


async def test_a_cancelled_submission_leaves_a_large_workspace(tmp_path: Path) -> None:
    """Between two files; nothing of it is left, and nothing was submitted."""
    for number in range(5000):
        (tmp_path / f"{number}").write_text("x")
    async with open_fake() as (orchestrator, _):
        snapshots = orchestrator.root.snapshots
        with trio.CancelScope() as scope:

            async def cancel_when_it_copies() -> None:
                while not any(snapshots.iterdir()):
                    await trio.sleep(0.001)
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_it_copies)
                await orchestrator.submit(PASSES, workspace=tmp_path)

        assert scope.cancelled_caught
        assert [] == list(snapshots.iterdir())
        assert [] == orchestrator.journal.jobs()


async def test_submitters_leave_threads_to_the_jobs(
    monkeypatch: pytest.MonkeyPatch, busy: Busy
) -> None:
    """However many publish large workspaces at once."""
    publishing_now = most = 0

    async def publish(*args: object, **options: object) -> Snapshot:
        nonlocal publishing_now, most
        publishing_now += 1
        most = max(most, publishing_now)
        await busy.wait_all_tasks_blocked()
        publishing_now -= 1
        raise UsageError("enough")

    monkeypatch.setattr(publishing, "publish", publish)
    async with open_fake() as (orchestrator, _):

        async def submit() -> None:
            with pytest.raises(UsageError, match="enough"):
                await orchestrator.submit(PASSES)

        async with trio.open_nursery() as nursery:
            for _ in range(3 * publishing.PUBLISHERS):
                nursery.start_soon(submit)

    assert publishing.PUBLISHERS == most


async def test_a_disk_that_was_full_for_a_while_loses_no_job(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Who waits, cancels or submits meanwhile is told; then the job goes on in its guest."""
    full = False
    commit = Journal._commit

    def commit_or_not(journal: Journal, parts: Any) -> None:
        if full:
            raise JournalUnwritable("no room")
        commit(journal, parts)

    monkeypatch.setattr(Journal, "_commit", commit_or_not)
    async with open_fake() as (orchestrator, fake):
        jobs = [await orchestrator.submit(JobSpec(command=f"sleep {n}")) for n in (5, 6)]
        for job in jobs:
            await started(orchestrator, job.id)
        full = True
        for call in (jobs[0].wait, jobs[1].wait, jobs[0].cancel):
            with pytest.raises(JournalUnwritable), trio.fail_after(30):
                await call()
        with pytest.raises(JournalUnwritable):
            await orchestrator.submit(PASSES)
        full = False
        await trio.sleep(2 * EVERY_SECS)
        ended = [(await job.wait()).verdict for job in jobs]

        assert [Verdict.PASSED] * 2 == ended
    assert {} == fake.instances()
