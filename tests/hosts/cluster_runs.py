"""Runs jobs on a cluster, and tells what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from orchestrator.capacity import Capacity
from orchestrator.engine import run_jobs
from orchestrator.hosts import open_hosts
from orchestrator.hosts.settings import VARIABLE
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.job.submission import Request
from orchestrator.journal import Journal, open_journal
from orchestrator.orchestrator import new_run_id
from orchestrator.session import reaper
from orchestrator.session.recovery import recover
from orchestrator.settings import open_incus
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import Job
from states.spec import JobSpec
from tests.hosts.cluster import Cluster
from tests.hosts.far_host import NAME as FAR_NAME
from tests.hosts.far_host import FarHost

NAME = "rig"


class Seen:
    """What has happened so far in a run; `until` waits for it."""

    def __init__(self) -> None:
        self.entries: list[ev.Entry] = []
        self._news = trio.Event()

    def take(self, entry: ev.Entry) -> None:
        self.entries.append(entry)
        self._news.set()
        self._news = trio.Event()

    def ended(self) -> int:
        """How many jobs have a verdict."""
        return sum(isinstance(entry, ev.ResultCollected | ev.Failed) for entry in self.entries)

    def lost(self) -> Counter[str]:
        """How many attempts were lost with each member."""
        return Counter(entry.member for entry in self.entries if isinstance(entry, ev.Lost))

    def running(self) -> Counter[str]:
        """How many jobs each member has whose command runs."""
        made: dict[str, str] = {}
        at: dict[str, str] = {}
        for entry in self.entries:
            match entry:
                case ev.DevicesConfigured():
                    made[entry.job] = entry.member
                case ev.Running():
                    at[entry.job] = made[entry.job]
                case ev.Lost() | ev.ResultCollected() | ev.Failed() | ev.Retried():
                    at.pop(entry.job, None)
        return Counter(at.values())

    async def until(self, is_so: Callable[[], bool], *, secs: float = 1200) -> None:
        """Return when it is so; looks at each entry of the journal."""
        with trio.fail_after(secs):
            while not is_so():
                await self._news.wait()


class ClusterRuns:
    """A workspace, and a state root.

    It is in the directory that all members share, or else trees are volumes on each member, or, with
    the `far` host that leads to the first member over ssh, directories on that one.
    """

    def __init__(
        self,
        cluster: Cluster,
        base: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        shared: bool = True,
        far: FarHost | None = None,
    ) -> None:
        self.cluster = cluster
        self.workspace = base / "workspace"
        self.workspace.mkdir()
        (self.workspace / "hello.txt").write_text("hello\n")
        self.root = StateRoot(cluster.shared / base.name if shared else base / "state")
        self.root.make()
        monkeypatch.delenv("INCUS_SOCKET", raising=False)
        if far is not None:
            self.host = FAR_NAME
            far.settings(shared=str(cluster.shared) if shared else None)
            for name, value in far.environment.items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("INCUS_DIR", str(base / "no-local-incus"))
            return
        self.host = NAME
        hosts = base / "hosts.toml"
        keys = ['remote = "local"', *([f'shared = "{cluster.shared}"'] if shared else [])]
        hosts.write_text("\n".join([f"[hosts.{NAME}]", *keys, ""]))
        monkeypatch.setenv(VARIABLE, str(hosts))
        monkeypatch.setenv("INCUS_DIR", str(cluster.members[0].directory))

    async def run(
        self,
        specs: Mapping[str, JobSpec],
        *,
        beside: Callable[[Seen], Awaitable[None]],
        parallel: int = 4,
    ) -> dict[str, Job]:
        """Run the specs as one run, with `beside`, which sees what happens; the jobs by name."""
        run, seen = new_run_id(), Seen()
        async with self._context() as context:
            context.journal.observe(seen.take)
            request = Request(workspace=self.workspace, specs=dict(specs))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(beside, seen)
                await run_jobs(context, request, parallel=parallel, run=run)
            jobs = [context.journal.job(row.id) for row in context.journal.jobs(run=run)]
        return {job.name: job for job in jobs}

    async def sweep(self) -> None:
        """What a later pikaci does with what was left."""
        async with self._context() as context:
            await recover(context, Queue(Capacity(jobs=4)))
            await reaper.reap(context, await reaper.unneeded(context))

    def verdicts(self) -> dict[str, int]:
        """How many verdicts each job has in the journal, by its name."""
        with open_journal(self.root.journal) as journal:
            return {row.name: _verdicts(journal, row.id) for row in journal.jobs()}

    def losses(self) -> Counter[str]:
        """In which states attempts were lost, and what was said of it."""
        with open_journal(self.root.journal) as journal:
            return Counter(
                f"lost while {entry.failure.phase}: {entry.failure.message}".replace("\n", ": ")
                for row in journal.jobs()
                for _, entry in journal.entries(row.id)
                if isinstance(entry, ev.Lost)
            )

    def open_leases(self) -> list[tuple[str, str]]:
        """The instances that may still be there, with their members."""
        with open_journal(self.root.journal) as journal:
            return [(lease.instance, lease.member) for lease in journal.open_leases()]

    @asynccontextmanager
    async def _context(self) -> AsyncIterator[Context]:
        with open_journal(self.root.journal) as journal:
            async with open_hosts(open_incus()) as hosts:
                yield Context.on(hosts, self.host, root=self.root, journal=journal)


def _verdicts(journal: Journal, job: str) -> int:
    entries = (entry for _, entry in journal.entries(job))
    return sum(isinstance(entry, ev.ResultCollected | ev.Failed) for entry in entries)
