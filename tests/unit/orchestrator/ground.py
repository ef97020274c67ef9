"""A state root and several hosts, each a fake, for tests of jobs that have a choice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import JobSpec, Orchestrator, Request, Settings
from orchestrator.capacity import Capacity
from orchestrator.incus import Incus
from orchestrator.job.handle import RunHandle
from states import events as ev
from states.job import Job
from tests.unit.orchestrator.fake_hosts import FakeHosts, open_fake_hosts

# As root: the fake has no id maps of its own choice for guests that run at the same time.
LONG = JobSpec(command="sleep 1000", timeout_secs=5000, run_as_root=True)


class Ground:
    """A state root, and hosts `a` and `b` beside the local one."""

    def __init__(self, base: Path, hosts: FakeHosts) -> None:
        self.base = base
        self.hosts = hosts
        self.workspace = base / "ws"
        self.workspace.mkdir(exist_ok=True)

    @asynccontextmanager
    async def open(self, *names: str, **more: Any) -> AsyncIterator[Orchestrator]:
        settings = Settings(
            self.workspace,
            state_root=self.base / "root",
            hosts=names,
            capacity=more.pop("capacity", Capacity(jobs=2)),
            **more,
        )
        incus = Incus(self.base / "conf", spawn=self.hosts)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            yield orchestrator

    async def submit(
        self, orchestrator: Orchestrator, specs: dict[str, JobSpec], **more: Any
    ) -> RunHandle:
        return await orchestrator.submit_run(Request(self.workspace, specs, **more))


@pytest.fixture
async def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ground]:
    async with open_fake_hosts(tmp_path, monkeypatch, "a", "b", b="jobs = 1") as hosts:
        yield Ground(tmp_path, hosts)


async def ended(run: RunHandle) -> list[Job]:
    return [await job.wait() for job in run.jobs]


def warnings(orchestrator: Orchestrator, job: Job) -> list[str]:
    entries = orchestrator.journal.entries(job.id)
    return [entry.message for _, entry in entries if isinstance(entry, ev.Warned)]
