"""One job that cannot be read is one such job: it is shown, and everything else goes on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from click.testing import CliRunner, Result
from trio.testing import MockClock

from orchestrator.attempt.plan import instance_name
from orchestrator.capacity import Capacity
from orchestrator.cli import cancel as cli_cancel
from orchestrator.cli import pikaci, resume_jobs
from orchestrator.host.doctor import _journal
from orchestrator.job.queue import Queue
from orchestrator.journal import JobUnreadable, Journal, open_journal
from orchestrator.journal.stamp import now
from orchestrator.session import reaper
from orchestrator.session.gc import Bounds, Freed, collect_garbage
from orchestrator.session.recovery import recover
from orchestrator.state_root import StateRoot
from states import events as ev
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec
from tests.calls import call
from tests.samples import PATH, sample_event, sample_life
from tests.unit.orchestrator.rig import Rig, open_rig

LAST = "(SELECT max(seq) FROM entries WHERE job = 'bad.1')"
DAMAGE: dict[str, str] = {
    "no json": f"UPDATE entries SET body = X'7B00' WHERE job = 'bad.1' AND seq = {LAST}",
    "no json at first": "UPDATE entries SET body = X'7B00' WHERE job = 'bad.1' AND seq = 1",
    "lost event": "DELETE FROM entries WHERE job = 'bad.1' AND seq = 2",
    "lost end": f"DELETE FROM entries WHERE job = 'bad.1' AND seq = {LAST}",
    "no events": "DELETE FROM entries WHERE job = 'bad.1'",
    "a newer pikaci's event": "UPDATE entries SET body = CAST(replace(CAST(body AS TEXT),"
    ' \'"type":"artifacts_reset"\', \'"type":"checked_out"\') AS BLOB) WHERE job = \'bad.1\'',
}
damages = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount


async def write(journal: Journal, run: str, *, upto: int = 6, at: datetime | None = None) -> None:
    """A run of one job, as far as its event `upto`."""
    for event in sample_life(*PATH[:upto]):
        changes: dict[str, Any] = {"job": f"{run}.1"}
        if at is not None:
            changes["at"] = at
        if isinstance(event, ev.Submitted):
            changes |= {"run": run, "name": run}
        await journal.append(msgspec.structs.replace(event, **changes))


async def make_root(path: Path, damage: str, *, upto: int = 6) -> StateRoot:
    """Two runs of which one has a job that cannot be read."""
    root = StateRoot(path)
    root.make()
    with open_journal(root.journal) as journal:
        for run in ("bad", "good"):
            await write(journal, run, upto=upto, at=datetime.now(UTC) - timedelta(days=9))
    change(root.journal, damage)
    return root


def run_command(root: StateRoot, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(pikaci, [*words, "--state-root", str(root.path)])
    return done.exit_code, done.output


@damages
async def test_the_others_are_read_as_ever(tmp_path: Path, damage: str) -> None:
    """Its error names it, once; to look at it is no error."""
    root = await make_root(tmp_path / "root", damage)
    with open_journal(root.journal) as journal:
        with pytest.raises(JobUnreadable, match=r"the job bad\.1 cannot be read"):
            journal.job("bad.1")
        seen = {row.id: journal.look(row) for row in journal.jobs()}

        assert {"bad.1"} == journal.damaged
        assert {"good.1": ""} == {id: job.damage for id, job in seen.items() if not job.damage}
        assert Verdict.PASSED is journal.job("good.1").verdict
        assert Verdict.PASSED is not seen["bad.1"].verdict


@damages
async def test_lists_show_it_as_damaged(tmp_path: Path, damage: str) -> None:
    """`list` and `status`, for people and programs; and they show all others."""
    root = await make_root(tmp_path / "root", damage)
    code, listed = run_command(root, "list", "--jobs")
    as_json = run_command(root, "list", "--output", "json")
    bad, good = (run_command(root, "status", run) for run in ("bad", "good"))
    report = json.loads(run_command(root, "status", "bad", "--output", "json")[1])

    assert 0 == code
    assert ["good.1  good  passed", "bad.1  bad  damaged"] == [
        line.strip() for line in listed.splitlines() if ".1" in line
    ]
    outcomes = {run["run"]: (run["outcome"], run["exit_code"]) for run in json.loads(as_json[1])}
    assert {"good": ("passed", 0), "bad": ("infrastructure", 4)} == outcomes
    assert (0, True) == (bad[0], " damaged " in bad[1])
    assert (0, True) == (good[0], " passed " in good[1])
    assert report["jobs"][0]["damaged"]
    assert "infrastructure" == report["outcome"]


@damages
@pytest.mark.parametrize("upto", [3, 6])
async def test_its_log_is_there(tmp_path: Path, damage: str, upto: int) -> None:
    """It lies beside the journal; who follows it does not wait for what nobody writes."""
    root = await make_root(tmp_path / "root", damage, upto=upto)
    log = root.attempt_dir("bad.1", 1) / "guest.log"
    log.parent.mkdir(parents=True)
    log.write_text("one\n")

    assert (0, "one\n") == run_command(root, "logs", "bad.1")
    assert (0, "one\n") == run_command(root, "logs", "--follow", "bad.1")


@damages
@pytest.mark.parametrize("words", [["trace"], ["trace", "export", "--format", "html"]])
async def test_a_trace_has_the_others_of_its_run(
    tmp_path: Path, damage: str, words: list[str]
) -> None:
    """It is named, and the exit code says that something is missing. Alone it is one error."""
    root = await make_root(tmp_path / "root", damage)
    with open_journal(root.journal) as journal:
        for event in sample_life():
            changes: dict[str, Any] = {"job": "bad.2"}
            if isinstance(event, ev.Submitted):
                changes |= {"run": "bad", "name": "beside"}
            await journal.append(msgspec.structs.replace(event, **changes))

    def trace(job: str) -> Result:
        root_option = ["--state-root", str(root.path)]
        return CliRunner().invoke(pikaci, [*words, job, *root_option], standalone_mode=False)

    together, alone = trace("bad"), trace("bad.1")

    assert "beside" in together.output
    if damage == DAMAGE["lost end"]:  # what is left is a trace
        assert (0, 0) == (together.return_value, alone.return_value)
    else:
        assert 4 == together.return_value
        assert "the job bad.1 cannot be read" in together.output
        assert isinstance(alone.exception, JobUnreadable)


@damages
async def test_doctor_names_it(tmp_path: Path, damage: str) -> None:
    """And says that nothing else is concerned: the journal need not go."""
    row = _journal(await make_root(tmp_path / "root", damage))

    assert "damaged" == row.state
    assert "bad.1: " in row.found
    assert row.found.endswith("1 of 2 jobs can be read")
    assert "mv " not in row.remedy


@damages
async def test_gc_takes_the_others_and_spares_its_run(tmp_path: Path, damage: str) -> None:
    """Somebody may want to know what it was; who is sure says so."""
    root = await make_root(tmp_path / "root", damage)
    bounds = Bounds(age=timedelta(days=1))
    with open_journal(root.journal) as journal:
        planned = collect_garbage(root, journal, bounds, dry_run=True)
        done = collect_garbage(root, journal, bounds, dry_run=False)
        left = [row.id for row in journal.jobs()]

        assert planned == done == Freed(1, 1, 0, 0, (), ("bad",))
        assert ["bad.1"] == left

        asked = msgspec.convert({"runs": 0, "damaged": True}, Bounds)
        collect_garbage(root, journal, asked, dry_run=False)
        assert [] == journal.jobs()


async def test_gc_takes_one_that_nobody_can_end_when_it_is_asked_to(tmp_path: Path) -> None:
    """It will never have a verdict; while its instance may be there, it stays."""
    root = await make_root(tmp_path / "root", DAMAGE["no json"], upto=4)
    asked = Bounds(runs=0, damaged=True)
    with open_journal(root.journal) as journal:
        lease = {"job": "bad.1", "instance": "pikaci-x", **now()}
        await journal.append(ev.LeaseOpened(deadline=datetime.now(UTC), **lease))
        leased = collect_garbage(root, journal, asked, dry_run=False)
        await journal.append(ev.LeaseEnded(**lease))
        free = collect_garbage(root, journal, asked, dry_run=False)
        left = [row.id for row in journal.jobs()]

    assert (0, 1) == (leased.runs, free.runs)
    assert ["good.1"] == left, "it has not ended, and can be read: recovery takes it"


@damages
async def test_its_siblings_are_recovered(
    tmp_path: Path, autojump_clock: MockClock, damage: str
) -> None:
    """In the same run and in others; it is left as it is, and named."""
    async with open_rig(tmp_path / "root") as rig:
        for run, number in (("bad", 1), ("bad", 2), ("good", 1)):
            await rig.submit(JobSpec(command="true"), number=number, run=run)
        await rig.journal.append(sample_event(ev.ArtifactsReset, 2, job="bad.1"))
        change(rig.context.root.journal, damage)
        before = rig.journal.bodies("bad.1")

        faults = await recover(rig.context, Queue(Capacity(jobs=4)))

        assert ["bad.1 cannot be read" in str(fault) for fault in faults] == [True]
        for job in ("bad.2", "good.1"):
            assert Verdict.PASSED is rig.journal.job(job).verdict
        assert before == rig.journal.bodies("bad.1")
        assert not rig.fake.instances()


async def make_instance(rig: Rig, attempt: int, *, deadline: datetime) -> str:
    """An instance of the job bad.1, as an attempt makes it."""
    name = instance_name(rig.journal.owner, "bad.1", attempt)
    tags = {
        reaper.OWNER: rig.journal.owner,
        reaper.RUN: "bad",
        reaper.JOB: "bad.1",
        reaper.DEADLINE: deadline.isoformat(),
    }
    root = {"root": {"type": "disk", "path": "/", "pool": "pikaci"}}
    document = msgspec.json.encode({"config": tags, "devices": root})
    incus = rig.context.incus
    image = f"{incus.remote}:pikaci/dev"
    await call(incus, "create", image, incus.name(name), stdin=document)
    return name


@damages
@pytest.mark.parametrize("attempt", [1, 2])
async def test_its_instance_is_needed_until_its_deadline(
    tmp_path: Path, damage: str, attempt: int
) -> None:
    """Whichever attempt's it is: what it was doing is not known. All others are reaped as ever."""
    async with open_rig(tmp_path / "root") as rig:
        await write(rig.journal, "bad", upto=4)
        later, before = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, -1))
        lives = await make_instance(rig, attempt, deadline=later)
        stray = await make_instance(rig, 7, deadline=later)
        readable = await reaper.unneeded(rig.context)
        change(rig.context.root.journal, damage)
        unreadable = await reaper.unneeded(rig.context)
        for name in (lives, stray):
            await call(rig.context.incus, "delete", "--force", rig.context.incus.name(name))
        late = await make_instance(rig, attempt, deadline=before)
        overdue = await reaper.unneeded(rig.context)

    assert {stray} <= {one.instance for one in readable}
    assert [] == unreadable
    assert [late] == [one.instance for one in overdue]


async def test_its_lease_ends_behind_its_deadline(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nobody drives it, so its instance goes when it has ended by itself anyway."""
    async with open_rig(tmp_path / "root") as rig:
        await write(rig.journal, "bad", upto=4)
        late = await make_instance(rig, 1, deadline=datetime.now(UTC))
        for instance, hours in ((late, -1), ("pikaci-later", 1)):
            deadline = datetime.now(UTC) + timedelta(hours=hours)
            lease = ev.LeaseOpened(job="bad.1", instance=instance, deadline=deadline, **now())
            await rig.journal.append(lease)
        change(rig.context.root.journal, DAMAGE["lost event"])
        await recover(rig.context, Queue(Capacity(jobs=1)))

        assert ["pikaci-later"] == [lease.instance for lease in rig.journal.open_leases()]
        assert not rig.fake.instances()


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rig], None]:
    """Commands talk to the fake of a rig."""

    def use(rig: Rig) -> None:
        for module in ("settings", "cli.resume_jobs"):
            monkeypatch.setattr(
                f"orchestrator.{module}.open_incus", lambda *_, **__: rig.context.incus
            )

    return use


@damages
async def test_resume_names_it_and_goes_on(
    tmp_path: Path,
    autojump_clock: MockClock,
    on: Callable[[Rig], None],
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    """Exit code 4, as not all is well; the JSON says of each run how it is."""
    async with open_rig(tmp_path / "root") as rig:
        on(rig)
        for run in ("bad", "good"):
            await rig.submit(JobSpec(command="true"), run=run)
        await rig.journal.append(sample_event(ev.ArtifactsReset, 2, job="bad.1"))
        change(rig.context.root.journal, damage)

        code = await resume_jobs._resume(rig.context.root, "json")

    out, err = capsys.readouterr()
    outcomes = {run["run"]: (run["outcome"], run["exit_code"]) for run in json.loads(out)}
    assert 4 == code
    assert {"bad": ("unfinished", 4), "good": ("passed", 0)} == outcomes
    assert "the job bad.1 cannot be read" in err


@damages
async def test_cancel_all_ends_the_others_and_names_it(
    tmp_path: Path,
    autojump_clock: MockClock,
    on: Callable[[Rig], None],
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    """It does not wait for what cannot come."""
    async with open_rig(tmp_path / "root") as rig:
        on(rig)
        for run in ("bad", "good"):
            await rig.submit(JobSpec(command="sleep 1000"), run=run)
        await rig.journal.append(sample_event(ev.ArtifactsReset, 2, job="bad.1"))
        change(rig.context.root.journal, damage)
        began = trio.current_time()

        code = await cli_cancel._cancel(rig.context.root, (), False, "human")

        assert State.CANCELLED is rig.journal.job("good.1").state
        assert trio.current_time() - began < 30

    out, err = capsys.readouterr()
    assert 4 == code
    assert "bad.1  job  damaged" in out
    assert "bad.1 cannot be read" in err


def test_a_note_that_cannot_be_read_harms_nothing(tmp_path: Path) -> None:
    """It moves nothing: the job is as readable as before, and its trace has all the rest."""

    async def main() -> None:
        root = await make_root(tmp_path / "root", DAMAGE["lost event"])
        with open_journal(root.journal) as journal:
            times = {"at": datetime.now(UTC), "monotonic": 1.0}
            await journal.append(ev.Warned(job="good.1", message="careful", **times))
        newer = "replace(CAST(body AS TEXT), '\"warned\"', '\"felt\"')"
        change(
            root.journal,
            f"UPDATE entries SET body = CAST({newer} AS BLOB) WHERE job = 'good.1' AND seq IS NULL",
        )
        with open_journal(root.journal) as journal:
            assert Verdict.PASSED is journal.job("good.1").verdict
            assert set() == journal.unreadable(["good.1"])
            *_, (_, note) = journal.entries("good.1")
            assert "felt" == ev.kind_of(note)
        code, exported = run_command(root, "trace", "export", "good.1")
        shown = run_command(root, "trace", "good.1", "--verbose")

        assert (0, True) == (code, '"type":"felt"' in exported)
        assert (0, True) == (shown[0], "felt: only a newer pikaci can read it" in shown[1])

    trio.run(main)


async def test_a_trace_of_a_newer_pikaci_s_job_is_exported_as_it_is(tmp_path: Path) -> None:
    """For the pikaci that can read it; a broken one is not taken for a trace."""
    root = await make_root(tmp_path / "root", DAMAGE["a newer pikaci's event"])
    broken = await make_root(tmp_path / "broken", DAMAGE["no json"])

    code, exported = run_command(root, "trace", "export", "bad.1")

    assert 0 == code
    assert '"type":"checked_out"' in exported
    assert 7 == len(exported.splitlines())
    words = ["trace", "export", "bad.1", "--state-root", str(broken.path)]
    assert isinstance(CliRunner().invoke(pikaci, words).exception, JobUnreadable)
