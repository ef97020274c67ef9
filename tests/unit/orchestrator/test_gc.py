"""gc takes what is beyond the bounds, and nothing that somebody may need."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from orchestrator.session.gc import Freed
from orchestrator.snapshot.snapshot import publish
from tests.samples import sample_life
from tests.unit.orchestrator.gc_ground import KILO, Ground
from tests.unit.orchestrator.gc_ground import ground as ground


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
