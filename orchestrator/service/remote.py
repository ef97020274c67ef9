"""A service with the verbs of the library: a program uses either in the same way.

    async with connect(root / "service.sock", workspace=Path.cwd()) as service:
        job = await service.submit(JobSpec(command="make test"), key="commit-1234")
        print((await job.wait()).verdict)

It is for trio; `orchestrator.aio` and `orchestrator.blocking` open it, too. What is not answered is
sent again for two minutes, with the same key: nothing is submitted twice.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import trio

from orchestrator.errors import UsageError, one_error
from orchestrator.job.submission import Request
from orchestrator.service.client import (
    Client,
    RunAnswer,
    open_client,
    open_tcp_client,
    submission_of,
)
from orchestrator.service.types import (
    Artifact,
    Artifacts,
    Cancel,
    JobDocument,
    SubmitRun,
    Tests,
    UsageDocument,
)
from orchestrator.units import counted
from states import events as ev
from states.rules import check
from states.spec import JobSpec
from states.testcases import Case, CaseOutcome
from states.usage import Usage

__all__ = ["RemoteJob", "RemoteRun", "RemoteService", "connect"]

_REFUSED = re.compile(r"[^\x21-\x7e]")


class RemoteJob:
    """A job of a service. Errors are those of the library: `NotFound`, `UsageError`, ...

    `ServiceGone` if the service does not answer any more; the job goes on.
    """

    def __init__(self, client: Client, id: str) -> None:
        self.id = id
        self._client = client
        self._path = f"/v1/jobs/{quote(id, safe='')}"

    def __repr__(self) -> str:
        return f"<RemoteJob {self.id}>"

    async def fetch(self) -> JobDocument:
        """The current job."""
        return await self._client.get(self._path, JobDocument)

    async def wait(self) -> JobDocument:
        """Return the job when it has ended, whatever its verdict."""
        while (job := await self.fetch()).verdict is None:
            async for _ in self.events():
                pass
        return job

    async def events(self) -> AsyncGenerator[ev.AnyEvent, None]:
        """The job's events as they happen, from first to last."""
        async for entry in self._client.entries(self.id):
            if isinstance(entry, ev.Event):
                yield entry

    async def log(self) -> AsyncGenerator[bytes, None]:
        """The job's log as it grows; ends when the job has ended."""
        async with aclosing(self._client.log(self.id)) as pieces:
            async for piece in pieces:
                yield piece.data

    async def cancel(self, *, reason: str = "asked for", now: bool = False) -> None:
        """Cancel the job, and return when it is dead; `now` skips the grace period."""
        await self._client.cancel(self.id, Cancel(now=now, reason=reason))

    async def artifacts(self) -> tuple[Artifact, ...]:
        """What the current attempt has left; nothing, while nothing was collected."""
        return (await self._client.get(f"{self._path}/artifacts", Artifacts)).artifacts

    async def tests(self, *outcomes: CaseOutcome) -> list[Case]:
        """The tests of the job's reports, in their order; with `outcomes` only those."""
        found: list[Case] = []
        following: int | None = 0
        while following is not None:
            page = await self._client.get(f"{self._path}/tests?after={following}", Tests)
            found += [case for case in page.tests if not outcomes or case.outcome in outcomes]
            following = page.next
        return found

    async def usage(self) -> Usage | None:
        """What the job used; None while that is not known, or if its guest does not say."""
        return (await self._client.get(f"{self._path}/usage", UsageDocument)).usage

    async def output(self) -> ev.OutputRef | None:
        """What the job left for other jobs, or reused; None if nothing, or not yet."""
        return (await self.fetch()).output


class RemoteRun:
    """A run of a service: its jobs, in order. Errors are those of `RemoteJob`."""

    def __init__(self, client: Client, run: RunAnswer) -> None:
        self.id = run.id
        self.jobs = tuple(RemoteJob(client, job.id) for job in run.jobs)

    def __repr__(self) -> str:
        return f"<RemoteRun {self.id}, {counted(len(self.jobs), 'job')}>"

    async def wait(self) -> list[JobDocument]:
        """Return the jobs when all have ended."""
        return [await job.wait() for job in self.jobs]


class RemoteService:
    """A service; made by `connect`."""

    def __init__(self, client: Client, where: str, workspace: Path | None) -> None:
        self._client = client
        self._where = where
        self._workspace = workspace

    def __repr__(self) -> str:
        return f"<RemoteService {self._where}>"

    async def submit(
        self, spec: JobSpec, *, name: str = "job", key: str = "", workspace: Path | None = None
    ) -> RemoteJob:
        """Submit one job; it is durable when this returns. A `key` is submitted once.

        The workspace is a directory on the service's host. `SpecError` with all mistakes of the
        spec, before anything is sent; `UsageError` if the service refuses the job, `KeyTaken`,
        `QueueFull`; `ServiceProblem` for a fault there.
        """
        check(spec)
        workspace = workspace or self._workspace
        if workspace is None:
            raise UsageError("there is no workspace", resolution="name one, here or in `connect`")
        run = await self._client.submit(
            SubmitRun(workspace=str(workspace), jobs={name: spec}),
            key=key or secrets.token_hex(16),
        )
        return RemoteJob(self._client, run.jobs[0].id)

    async def submit_and_wait(
        self, spec: JobSpec, *, name: str = "job", key: str = "", workspace: Path | None = None
    ) -> JobDocument:
        """Submit a job, and return it when it has ended. A cancellation cancels the job first.

        So it does for all who submitted it with this key.
        """
        # One that was broken off would run there, and nobody cancel it.
        with trio.CancelScope(shield=True):
            job = await self.submit(spec, name=name, key=key, workspace=workspace)
        try:
            return await job.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await job.cancel(reason="its submitter was cancelled")
            raise

    async def submit_run(self, request: Request) -> RemoteRun:
        """Submit the jobs of a request, all or none; they are durable when this returns.

        Its workspace and its jobs' directories are on the service's host. `SpecError` with all
        mistakes of a spec, before anything is sent; other errors are those of `submit`.
        """
        for spec in request.specs.values():
            check(spec)
        key = request.key or secrets.token_hex(16)
        return RemoteRun(self._client, await self._client.submit(submission_of(request), key=key))

    async def find_run(self, id: str) -> RemoteRun:
        """A run of the service, by its id or its number. `NotFound` if there is none."""
        run = await self._client.get(f"/v1/runs/{quote(id, safe='')}", RunAnswer)
        return RemoteRun(self._client, run)

    async def cancel(
        self, jobs: Iterable[str], *, reason: str = "asked for", now: bool = False
    ) -> None:
        """Cancel jobs, by id; return when they are dead. `now` skips the grace period."""
        with one_error():
            async with trio.open_nursery() as nursery:
                for id in jobs:
                    job = RemoteJob(self._client, id)
                    nursery.start_soon(partial(job.cancel, reason=reason, now=now))

    async def find_job(self, id: str) -> RemoteJob:
        """A job of the service. `NotFound` if there is none."""
        job = RemoteJob(self._client, id)
        await job.fetch()
        return job


@asynccontextmanager
async def connect(
    where: Path | str, *, token: str = "", workspace: Path | None = None
) -> AsyncIterator[RemoteService]:
    """A service: the path of its socket, or its URL with the token of `pikaci serve --listen`.

    `workspace` is that of jobs which name none, absolute, on the service's host. Leaving the block
    cancels no jobs.
    """
    url = isinstance(where, str) and where.startswith(("http://", "https://"))
    if url and (not token or _REFUSED.search(token)):
        raise UsageError(
            "the token is empty, or has invalid characters",
            resolution="set `token=` to the content of the file of `pikaci serve --token-file`",
        )
    if not url and not Path(where).parent.is_dir():
        raise UsageError(
            f"{where}: there is no such directory",
            resolution="name the socket of `pikaci serve`: service.sock in its state root",
        )
    opening = open_tcp_client(str(where), token) if url else open_client(Path(where))
    async with opening as client:
        yield RemoteService(client, str(where), workspace)
