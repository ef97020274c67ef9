"""A service on a real unix socket, over a fake Incus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio
from starlette.types import ASGIApp

from orchestrator import JobSpec, Orchestrator
from orchestrator.fake_incus import FakeIncus
from orchestrator.service.app import LocalOnly, make_app
from orchestrator.service.connections import serve_connections
from orchestrator.service.held import HeldRuns
from orchestrator.service.server import unix_socket
from orchestrator.testing import open_fake
from states import events as ev


@dataclass
class Served:
    """The orchestrator, its fake daemon, and a client of its service."""

    orchestrator: Orchestrator
    fake: FakeIncus
    http: httpx.AsyncClient
    socket: Path
    stopping: trio.Event
    serving: trio.CancelScope
    ended: trio.Event
    task: trio.lowlevel.Task
    listen: Callable[[], Awaitable[None]]

    async def restart(self, away_secs: float) -> None:
        """Close all connections, like a process that dies, and listen again after a while."""
        self.serving.cancel()
        await self.ended.wait()
        await trio.sleep(away_secs)
        await self.listen()

    @property
    def workspace(self) -> str:
        return str(self.orchestrator.root.path.parent / "workspace")

    async def submit(self, command: str = "echo one; echo two", **headers: str) -> Any:
        """Submit one job over HTTP; return its document."""
        answer = await self.http.post(
            "/v1/runs",
            json={"workspace": self.workspace, "jobs": {"job": {"command": command}}},
            headers=headers,
        )
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["jobs"][0]

    async def started(self, job: str) -> None:
        """Return when the job's command runs."""
        async for event in self.orchestrator.job(job).events():
            if isinstance(event, ev.Running):
                return

    async def settled(self, job: str) -> None:
        """Return when nothing more is written about the job."""
        while self.orchestrator.drives(job):
            await self.orchestrator.arrivals.entry(job).wait()


@asynccontextmanager
async def open_served(
    wrap: Callable[[ASGIApp], ASGIApp] = LocalOnly, most: int | None = None, **options: Any
) -> AsyncIterator[Served]:
    """Serve at most `most` connections during the block; `options` go to `open_fake`."""
    async with open_fake(**options) as (orchestrator, fake):
        path = orchestrator.root.path / "service.sock"
        stopping = trio.Event()
        held = HeldRuns(orchestrator)
        app = make_app(orchestrator, stopping=stopping, held=held)
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with (
            trio.open_nursery() as nursery,
            httpx.AsyncClient(transport=transport, base_url="http://pikaci", timeout=60) as http,
        ):
            served: Served

            async def serve(task_status: trio.TaskStatus[trio.lowlevel.Task]) -> None:
                served.serving, served.ended = trio.CancelScope(), trio.Event()
                with unix_socket(path) as door:
                    task_status.started(trio.lowlevel.current_task())
                    with served.serving:
                        await serve_connections(wrap(app), door, stopping, most=most)
                served.ended.set()

            async def listen() -> None:
                served.task = await nursery.start(serve)

            here = trio.lowlevel.current_task()
            served = Served(
                orchestrator,
                fake,
                http,
                path,
                stopping,
                trio.CancelScope(),
                trio.Event(),
                here,
                listen,
            )
            await listen()
            nursery.start_soon(held.watch)
            yield served
            nursery.cancel_scope.cancel()


SLEEPS = JobSpec(command="sleep 10000", timeout_secs=100_000)
