"""What gc finds is odd or hostile: it deletes nothing but what is ours."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.journal.file import connect_to_read
from orchestrator.journal.reader import JournalReader
from orchestrator.session import locks
from orchestrator.session.gc import Bounds, collect_garbage
from orchestrator.snapshot.snapshot import publish
from tests.samples import sample_life
from tests.unit.orchestrator.gc_ground import Ground
from tests.unit.orchestrator.gc_ground import ground as ground


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
