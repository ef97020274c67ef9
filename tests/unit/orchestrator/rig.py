"""A job task on the fake Incus, without a workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.capacity import Capacity
from orchestrator.contract import contract
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Call, Incus
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.job.task import JobTask
from orchestrator.journal import Journal, open_journal
from orchestrator.journal.stamp import now
from orchestrator.session.recovery import recover
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import Job, fold
from states.spec import JobSpec

SNAPSHOT = "abc"


class Rig:
    """A state root with a journal, and a fake daemon; `calls` are all that it was asked."""

    def __init__(self, base: Path, journal: Journal, fake: FakeIncus, **options: Any) -> None:
        self.journal = journal
        self.fake = fake
        self.calls: list[Call] = []
        root = StateRoot(base)
        root.make()
        incus = Incus(base / "conf", spawn=fake, observe=self.calls.append)
        self.context = Context(root=root, journal=journal, incus=incus, **options)
        self.images = self.context.here.images

    async def submit(
        self,
        spec: JobSpec,
        *,
        number: int = 1,
        run: str = "r",
        queue: Queue | None = None,
        **changes: Any,
    ) -> JobTask:
        """A task for a job that was submitted as `run.number`; `changes` go to its first event."""
        event = ev.Submitted(
            job=f"{run}.{number}",
            seq=1,
            run=run,
            name="job",
            spec=spec,
            workspace="/src",
            snapshot=ev.SnapshotRef(hash=SNAPSHOT),
            contract=contract().version,
            **now(),
        )
        event = msgspec.structs.replace(event, **changes)
        (self.context.root.snapshots / SNAPSHOT).mkdir(exist_ok=True)
        await self.journal.append(event)
        return JobTask(self.context, fold([event]), queue or Queue(Capacity(jobs=1)))

    async def live(self, spec: JobSpec, *, number: int = 1, run: str = "r") -> Job:
        """Run one job to its end, and read it back from the journal."""
        task = await self.submit(spec, number=number, run=run)
        await task.run()
        return self.journal.job(task.job.id)

    def entries(self, job: str = "r.1") -> list[ev.Entry]:
        return [entry for _, entry in self.journal.entries(job)]

    def notes(self, kind: type[ev.Note], job: str = "r.1") -> list[Any]:
        return [entry for entry in self.entries(job) if isinstance(entry, kind)]


@asynccontextmanager
async def open_rig(base: Path, **options: Any) -> AsyncIterator[Rig]:
    """A rig; `options` go to the workbench, but for `guest_script`, which the guests follow."""
    scripts = {key: options.pop(key) for key in ("guest_script",) if key in options}
    async with FakeIncus.open(**scripts) as fake:
        base.mkdir(exist_ok=True)
        with open_journal(base / "journal.sqlite3") as journal:
            yield Rig(base, journal, fake, **options)


async def sweep(rig: Rig) -> None:
    """What the next start does about what is left."""
    await recover(rig.context, Queue(Capacity(jobs=1)))


def settled(rig: Rig) -> bool:
    """Nothing of ours is left in the daemon, and no lease is open."""
    return not rig.fake.instances() and not rig.journal.open_leases()
