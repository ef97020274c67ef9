"""gc takes what is beyond the bounds, and nothing that somebody may need."""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from click.testing import CliRunner

from orchestrator.cli import pikaci
from orchestrator.job import publisher
from orchestrator.journal import JobRow, Journal, open_journal
from orchestrator.journal.file import connect_to_read
from orchestrator.journal.reader import JournalReader
from orchestrator.session import locks
from orchestrator.session.gc import Bounds, Freed, collect_garbage
from orchestrator.snapshot.snapshot import Snapshot, publish
from orchestrator.state_root import StateRoot
from orchestrator.testing import open_fake
from states import events as ev
from states.spec import JobSpec
from tests.samples import PATH, sample_life

KILO = 1024


class Ground:
    """A state root with a journal, on which runs can be laid out."""

    def __init__(self, root: StateRoot, journal: Journal) -> None:
        self.root = root
        self.journal = journal

    async def run(
        self,
        run: str,
        *,
        snapshot: str = "abc",
        jobs: int = 1,
        upto: int = len(PATH),
        age: timedelta = timedelta(),
        kilobytes: int = 4,
    ) -> None:
        """A run whose jobs came as far as their event number `upto`, `age` ago."""
        for number in range(1, jobs + 1):
            job = f"{run}.{number}"
            for event in sample_life(*PATH[:upto]):
                changes = {"job": job, "at": datetime.now(UTC) - age}
                if isinstance(event, ev.Submitted):
                    changes |= {"run": run, "snapshot": ev.SnapshotRef(hash=snapshot)}
                await self.journal.append(msgspec.structs.replace(event, **changes))
            directory = self.root.attempt_dir(job, 1)
            directory.mkdir(parents=True)
            (directory / "guest.log").write_bytes(b"x" * kilobytes * KILO)
        self.snapshot(snapshot)

    def snapshot(self, name: str, *, kilobytes: int = 4) -> Path:
        path = self.root.snapshots / name
        path.mkdir(exist_ok=True)
        (path / "file").write_bytes(b"x" * kilobytes * KILO)
        return path

    def gc(self, *, dry_run: bool = False, **bounds: object) -> Freed:
        return collect_garbage(
            self.root, self.journal, msgspec.convert(bounds, Bounds), dry_run=dry_run
        )

    @property
    def runs(self) -> list[str]:
        """The runs that are left: the journal and the disk agree on them."""
        jobs = [row.id for row in self.journal.jobs()]
        assert sorted(jobs) == sorted(os.listdir(self.root.path / "jobs"))
        return list(dict.fromkeys(row.run for row in self.journal.jobs()))

    @property
    def snapshots(self) -> list[str]:
        return sorted(os.listdir(self.root.snapshots))


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    root = StateRoot(tmp_path / "root")
    root.make()
    with open_journal(root.journal) as journal:
        yield Ground(root, journal)


async def test_the_newest_runs_stay(ground: Ground) -> None:
    """`runs` counts runs, not jobs; a dry run says the same and deletes nothing."""
    for number in range(4):
        await ground.run(f"r{number}", snapshot=f"tree{number}", jobs=2)

    planned = ground.gc(runs=1, dry_run=True)
    before = ground.runs
    done = ground.gc(runs=1)

    assert 4 == len(before)
    assert (3, 6, 3) == (done.runs, done.jobs, done.snapshots)
    assert planned == done
    assert (["r3"], ["tree3"]) == (ground.runs, ground.snapshots)
    assert ground.gc(runs=1) == Freed(0, 0, 0, 0, ())


async def test_runs_whose_jobs_were_written_in_turn_are_still_two_runs(ground: Ground) -> None:
    """Two runs that began at once stand mixed in the journal; each is taken once, and whole."""
    for job, run in (("r.1", "r"), ("q.1", "q"), ("r.2", "r"), ("q.2", "q")):
        life = [msgspec.structs.replace(event, job=job) for event in sample_life()]
        await ground.journal.append(msgspec.structs.replace(life[0], run=run), *life[1:])
        ground.root.attempt_dir(job, 1).mkdir(parents=True)

    done = ground.gc(runs=1)

    assert (1, 2) == (done.runs, done.jobs)
    assert ["q"] == ground.runs


@pytest.mark.parametrize("missing", ["snapshots", "locks", "jobs"])
@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_directory_that_is_not_there_has_nothing_to_delete(
    ground: Ground, missing: str, dry_run: bool
) -> None:
    """Whichever of the state root's is gone: the rest is cleaned up as ever."""
    await ground.run("old")
    shutil.rmtree(ground.root.path / missing)

    done = ground.gc(runs=0, dry_run=dry_run)

    assert (1, ()) == (done.runs, done.problems)


async def test_runs_of_an_age_go(ground: Ground) -> None:
    """`age` is since the last job of the run ended."""
    await ground.run("old", age=timedelta(days=31))
    await ground.run("new", age=timedelta(days=29))

    ground.gc(age=timedelta(days=30))

    assert ["new"] == ground.runs


async def test_the_oldest_go_until_the_rest_fits(ground: Ground) -> None:
    """`size` counts a snapshot once, and frees it with the last run that names it."""
    await ground.run("a", snapshot="shared", kilobytes=100)
    await ground.run("b", snapshot="shared", kilobytes=100)
    await ground.run("c", snapshot="own", kilobytes=100)
    await ground.run("d", snapshot="own", kilobytes=100)
    ground.snapshot("shared", kilobytes=500)

    none = ground.gc(size=10_000 * KILO)
    done = ground.gc(size=850 * KILO)
    one, left = ground.runs, ground.snapshots
    ground.gc(size=400 * KILO)

    assert (0, 1) == (none.runs, done.runs)
    assert (["b", "c", "d"], ["own", "shared"]) == (one, left)
    assert (["c", "d"], ["own"]) == (ground.runs, ground.snapshots)


async def test_files_that_snapshots_share_count_once(ground: Ground) -> None:
    """They are freed with the last of these snapshots, and no run goes for bytes that stay."""
    for run, snapshot in (("a", "one"), ("b", "two"), ("c", "three")):
        await ground.run(run, snapshot=snapshot)
    ground.snapshot("one", kilobytes=500)
    for name in ("two", "three"):
        (ground.root.snapshots / name / "shared").hardlink_to(
            ground.root.snapshots / "one" / "file"
        )

    none = ground.gc(size=700 * KILO)
    first = ground.gc(runs=1)
    last = ground.gc(runs=0)

    assert (0, 2, 1) == (none.runs, first.runs, last.runs)
    assert first.size < 100 * KILO < 500 * KILO <= last.size < 600 * KILO


async def test_gc_deletes_no_snapshot_that_is_being_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither for a submission, nor for a program that publishes first."""
    alone = []

    async def look(tree: Path, snapshots: Path, **named: Any) -> Snapshot:
        with locks.no_submissions(snapshots) as only_gc:
            alone.append(only_gc)
        return await publish(tree, snapshots, **named)

    monkeypatch.setattr(publisher, "publish", look)
    async with open_fake() as (orchestrator, _):
        await orchestrator.snapshot()
        await orchestrator.submit_and_wait(JobSpec(command="true"))

    assert [False, False] == alone


async def test_what_is_known_of_a_deleted_snapshot_s_files_goes(
    ground: Ground, workspace: Path
) -> None:
    """Of a kept one it stays; what is torn, or was never finished, goes too."""
    paths = []
    for name in ("kept", "deleted"):
        (workspace / "a").write_text(name)
        paths.append(ground.root.index(workspace / name))
        snapshot = await publish(workspace, ground.root.snapshots, owner=(1, 1), index=paths[-1])
        await ground.run(name, snapshot=snapshot.hash, age=timedelta(name == "deleted"))
    (ground.root.indexes / "torn").write_bytes(paths[0].read_bytes()[:5])
    shutil.copy(paths[0], ground.root.indexes / ".new-1234")

    ground.gc(age=timedelta(hours=1))

    assert [paths[0]] == list(ground.root.indexes.iterdir())


async def test_what_was_freed_is_what_the_disk_had(ground: Ground) -> None:
    """The size is that of all that went, in bytes on the disk."""
    await ground.run("r", kilobytes=300)

    assert 304 * KILO <= ground.gc(runs=0).size <= 400 * KILO


async def test_a_living_run_is_never_taken(ground: Ground) -> None:
    """Not even when all its jobs have ended: its process may not be done with it."""
    await ground.run("living", snapshot="tree")
    await ground.run("dead")

    with locks.hold_run(ground.root.locks, "living"):
        done = ground.gc(runs=0, age=timedelta(), size=0)
        stayed = ground.runs, ground.snapshots
    ground.gc(runs=0)

    assert (1, 1) == (done.runs, done.snapshots)
    assert (["living"], ["tree"]) == stayed
    assert ([], []) == (ground.runs, ground.snapshots)


async def test_what_is_not_settled_is_never_taken(ground: Ground) -> None:
    """A job that has not ended, and one whose instance may still be there, are recovery's."""
    await ground.run("unfinished", snapshot="a", upto=3)
    await ground.run("leased", snapshot="b")
    await ground.run("kept", snapshot="c")
    for run in ("leased", "kept"):
        lease = {"job": f"{run}.1", "instance": run, "at": datetime.now(UTC), "monotonic": 1.0}
        await ground.journal.append(ev.LeaseOpened(deadline=lease["at"], **lease))
    await ground.journal.append(ev.LeaseKept(deadline=lease["at"], **lease))
    for run in ("unfinished", "leased", "kept"):
        (ground.root.locks / run).touch()

    done = ground.gc(runs=0, age=timedelta(), size=0)

    assert Freed(0, 0, 0, 0, ()) == done
    assert ["unfinished", "leased", "kept"] == ground.runs
    assert ["a", "b", "c"] == ground.snapshots


async def test_a_submission_that_is_going_on_keeps_all_snapshots(ground: Ground) -> None:
    """It may be writing one, or have found one that no run in the journal names."""
    ground.snapshot("found")
    ground.snapshot(".new-0123")

    async with locks.submitting(ground.root.snapshots):
        during = ground.gc(runs=0).snapshots, ground.snapshots
    after = ground.gc(runs=0).snapshots

    assert (0, [".new-0123", "found"]) == during
    assert 2 == after
    assert [] == ground.snapshots


async def test_a_run_that_is_submitted_meanwhile_keeps_its_snapshot(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that found the snapshot just before it went gets it back."""
    ground.snapshot("found")
    looks = 0
    runs = Journal.runs

    def more_runs(journal: Journal) -> dict[str, list[JobRow]]:
        nonlocal looks
        looks += 1
        return {**runs(journal), **({"fresh": []} if looks > 1 else {})}

    monkeypatch.setattr(Journal, "runs", more_runs)
    done = ground.gc(runs=0)

    assert (2, 0) == (looks, done.snapshots)
    assert ["found"] == ground.snapshots


async def test_submissions_do_not_wait_for_a_tree_to_be_deleted(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for it to be renamed. Publishing the same tree meanwhile makes a new one."""
    ground.snapshot("tree")
    rmtree = shutil.rmtree
    seen: list[list[str]] = []

    def delete(path: Path, **options: Any) -> None:
        async def submit() -> None:
            async with locks.submitting(ground.root.snapshots):
                ground.snapshot("tree")
                seen.append(ground.snapshots)

        thread = threading.Thread(target=trio.run, args=(submit,), daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", delete)
    done = ground.gc(runs=0)

    ((going, there),) = seen
    assert (".old-", "tree") == (going[:5], there)
    assert 1 == done.snapshots
    assert ["tree"] == ground.snapshots


async def test_what_a_killed_gc_set_aside_goes_the_next_time(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when half of it is gone."""
    ground.snapshot("one")
    ground.snapshot("other")

    def die(path: Path, **options: Any) -> None:
        next(Path(path).iterdir()).unlink()
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(SystemExit):
            ground.gc(runs=0)
    left = ground.snapshots
    done = ground.gc(runs=0)

    assert [".old-", ".old-"] == [name[:5] for name in left]
    assert (2, ()) == (done.snapshots, done.problems)
    assert [] == ground.snapshots


async def test_two_gcs_that_delete_one_tree_are_no_problem(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other one was faster with is gone, as it should be."""
    ground.snapshot("tree")
    unlink = os.unlink

    def lose(name: str, **options: Any) -> None:
        unlink(name, **options)  # the other one
        unlink(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lose)
        done = ground.gc(runs=0)

    assert (1, ()) == (done.snapshots, done.problems)
    assert [] == ground.snapshots


async def test_a_published_snapshot_goes_whole(ground: Ground, tmp_path: Path) -> None:
    """Whatever modes and links it has, and what the links name stays."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "script").touch(mode=0o500)
    (workspace / "link").symlink_to("/etc/passwd")
    await publish(workspace, ground.root.snapshots, owner=(1000, 100))

    assert 1 == ground.gc(runs=0).snapshots
    assert [] == ground.snapshots
    assert Path("/etc/passwd").exists()


async def test_links_are_deleted_and_not_followed(ground: Ground, tmp_path: Path) -> None:
    """A link in the place of a job, a snapshot or a lock leads nowhere."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    await ground.run("r")
    for place in (ground.root.path / "jobs" / "r.1", ground.root.snapshots / "abc"):
        os.rename(place, tmp_path / f"away-{place.name}")
        place.symlink_to(precious)
    (ground.root.snapshots / "link").symlink_to(precious / "file")
    (ground.root.locks / "r2").symlink_to(precious / "file")
    (ground.root.locks / "r3.sock").symlink_to(precious / "file")

    ground.gc(runs=0)

    assert "mine" == (precious / "file").read_text()
    assert ([], []) == (ground.runs, ground.snapshots)


@pytest.mark.parametrize("job", ["../precious", "r/../../precious", "..", ".", "/"])
async def test_a_job_with_a_hostile_name_is_left_alone(ground: Ground, job: str) -> None:
    """No name in a damaged journal leads out of the directory of jobs."""
    precious = ground.root.path / "precious"
    precious.mkdir()
    life = [msgspec.structs.replace(event, job=job) for event in sample_life()]
    await ground.journal.append(*life)

    done = ground.gc(runs=0)

    assert 0 == done.runs
    assert precious.exists()
    assert [job] == [row.id for row in ground.journal.jobs()]


async def test_a_job_is_forgotten_only_when_its_directory_is_gone(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be deleted is told, stays in the journal, and goes the next time."""
    await ground.run("r", snapshot="tree")
    await ground.run("q", snapshot="other")

    def refuse(path: Path, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        refused = ground.gc(runs=1)
    stayed = ground.runs, ground.snapshots
    done = ground.gc(runs=1)

    directory = ground.root.path / "jobs" / "r.1"
    assert (f"{directory} could not be deleted: Operation not permitted",) == refused.problems
    assert (0, 0, 0, 0) == (refused.runs, refused.jobs, refused.snapshots, refused.size)
    assert (["r", "q"], ["other", "tree"]) == stayed
    assert (1, ()) == (done.runs, done.problems)


async def test_a_journal_that_cannot_be_written_yet_is_no_hindrance(ground: Ground) -> None:
    """On a full disk it can only be read until gc has deleted something."""
    await ground.run("old")
    await ground.run("new")

    path = ground.root.journal
    with closing(JournalReader(partial(connect_to_read, path), path)) as journal:
        done = collect_garbage(ground.root, journal, Bounds(runs=1), dry_run=False)

    assert 1 == done.runs
    assert ["new"] == ground.runs


async def test_locks_and_sockets_of_the_dead_go(ground: Ground) -> None:
    """But those of a living run, and those that recovery will take."""
    await ground.run("ended")
    await ground.run("unfinished", upto=3)
    directory = ground.root.locks
    for run in ("ended", "unfinished", "unknown"):
        (directory / run).touch()
        here = os.getcwd()
        os.chdir(directory)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(f"{run}.sock")
        os.chdir(here)

    with locks.hold_run(directory, "living"):
        ground.gc(runs=9)
        left_over = sorted(os.listdir(directory))

    assert ["living", "unfinished", "unfinished.sock"] == left_over


def gc_command(root: StateRoot, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(
        pikaci, ["gc", "--state-root", str(root.path), *words], standalone_mode=False
    )
    if done.exception:
        raise done.exception
    return done.return_value, done.output


async def test_the_command_says_what_it_freed(ground: Ground) -> None:
    """20 runs stay when no bound is given; another bound stands alone; sizes are shown."""
    for number in range(21):
        await ground.run(f"r{number}", age=timedelta(days=21 - number))

    old = gc_command(ground.root, "--older-than", "30d")
    default = gc_command(ground.root)
    aged = gc_command(ground.root, "--older-than", "36h", "--dry-run")
    sized = gc_command(ground.root, "--max-size", "16K")

    assert (0, "deleted 0 runs, 0 jobs, 0 snapshots and 0 outputs: 0 B\n") == old
    assert 0 == default[0]
    assert re.fullmatch(
        r"deleted 1 runs, 1 jobs, 0 snapshots and 0 outputs: [0-9.]+ KiB\n", default[1]
    )
    assert "would delete 19 runs" in aged[1]
    assert re.fullmatch(
        r"deleted 20 runs, 20 jobs, 1 snapshots and 0 outputs: [0-9.]+ KiB\n", sized[1]
    )


@pytest.mark.parametrize(
    "words",
    [["--older-than", "30"], ["--older-than", "-1d"], ["--max-size", "5"], ["--max-size", "5X"]],
)
def test_a_bound_that_is_none_says_what_is_allowed(ground: Ground, words: list[str]) -> None:
    """One clear line, with examples."""
    done = CliRunner().invoke(pikaci, ["gc", *words])

    assert 2 == done.exit_code
    assert "is not a valid" in done.output
    assert "write " in done.output
