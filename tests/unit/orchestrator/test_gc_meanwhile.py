"""gc takes nothing that somebody has, or is about to have."""

from __future__ import annotations

import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.job import publisher
from orchestrator.journal import JobRow, Journal
from orchestrator.session import locks
from orchestrator.session.gc import Freed
from orchestrator.snapshot.snapshot import Snapshot, publish
from orchestrator.testing import open_fake
from states import events as ev
from states.spec import JobSpec
from tests.unit.orchestrator.gc_ground import Ground
from tests.unit.orchestrator.gc_ground import ground as ground


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
