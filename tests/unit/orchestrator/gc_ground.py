"""A state root for gc to clean up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from orchestrator.journal import Journal, open_journal
from orchestrator.session.gc import Bounds, Freed, collect_garbage
from orchestrator.state_root import StateRoot
from states import events as ev
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
