"""A service with its page, on TCP over a fake Incus, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio
from starlette.types import ASGIApp

from orchestrator import JobSpec, Orchestrator
from orchestrator.fake_incus import FakeIncus
from orchestrator.job.submission import Request
from orchestrator.service.app import LocalOnly, make_app
from orchestrator.service.connections import serve_connections
from orchestrator.service.server import tcp_socket
from orchestrator.testing import open_fake
from states.job import Job

SECS = 60
_T = TypeVar("_T")


@dataclass
class Site:
    """`url` is that of the page; `orchestrator` and `fake` belong to the thread: see `run`."""

    orchestrator: Orchestrator
    fake: FakeIncus
    app: ASGIApp
    token: trio.lowlevel.TrioToken
    nursery: trio.Nursery
    address: str = "127.0.0.1:0"
    _serving: trio.CancelScope | None = None
    _stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def run(self, function: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        """Run a function in the service's thread, and return what it returns."""

        async def bounded() -> _T:
            with trio.fail_after(SECS):
                return await function(*args)

        return trio.from_thread.run(bounded, trio_token=self.token)

    def submit(self, **jobs: str) -> list[str]:
        """Submit a run of named commands; return the ids of its jobs."""
        specs = {name: JobSpec(command=command) for name, command in jobs.items()}
        return self.submit_specs(specs)

    def submit_specs(self, specs: dict[str, JobSpec]) -> list[str]:
        """Submit a run; return the ids of its jobs."""
        workspace = self.orchestrator.root.path.parent / "workspace"
        run = self.run(self.orchestrator.submit_run, Request(workspace, specs))
        return [job.id for job in run.jobs]

    def ended(self, job: str) -> Job:
        """The job, when it has ended."""
        return self.run(self.orchestrator.job(job).wait)

    def log(self, job: str) -> Path:
        """The path of a job's log."""
        return self.orchestrator.job(job).directory / "guest.log"

    def close(self) -> None:
        """Stop listening, and close every connection."""

        async def close() -> None:
            assert self._serving is not None
            self._serving.cancel()
            await self._stopped.wait()

        self.run(close)

    def listen(self) -> None:
        """Listen again, at the same address."""

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            with tcp_socket(self.address) as door, trio.CancelScope() as self._serving:
                self._stopped = trio.Event()
                host, port = door.getsockname()
                self.address = f"{host}:{port}"
                task_status.started()
                await serve_connections(self.app, door, trio.Event())
            self._stopped.set()

        self.run(self.nursery.start, serve)


@contextmanager
def open_site(wrap: Callable[[ASGIApp], ASGIApp] = LocalOnly, **options: Any) -> Iterator[Site]:
    """Serve during the block; `options` go to `open_fake`."""
    found: list[Site] = []
    begun, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with (
            open_fake(**options) as (orchestrator, fake),
            trio.open_nursery() as nursery,
        ):
            app = wrap(make_app(orchestrator))
            found.append(Site(orchestrator, fake, app, trio.lowlevel.current_trio_token(), nursery))
            begun.set()
            await trio.to_thread.run_sync(stop.wait, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()
            orchestrator.detach()

    thread = threading.Thread(target=partial(trio.run, main))
    thread.start()
    try:
        assert begun.wait(SECS)
        found[0].listen()
        yield found[0]
    finally:
        stop.set()
        thread.join(SECS)
