"""The client of a service, over its unix socket or TCP; `orchestrator.service.remote` uses it."""

from __future__ import annotations

import base64
import os
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec
import trio

from orchestrator.errors import KeyTaken, NotFound, UsageError
from orchestrator.job.backlog import QueueFull
from orchestrator.job.handle import LogPiece
from orchestrator.job.submission import Request
from orchestrator.service.types import (
    KEEP_ALIVE_SECS,
    Cancel,
    ProblemDocument,
    SubmitRun,
)
from states import events as ev
from states import recorded
from states.errors import PikaciError
from states.outcome import Verdict

# A submission is answered once its workspace is copied, a cancellation once its jobs are dead.
ANSWER_SECS = 600.0
# A stream sends something every 15 s; after three missing ones, its connection is lost.
QUIET_SECS = 3 * KEEP_ALIVE_SECS
# Requests without an answer are retried for this long; then the service is gone.
AWAY_SECS = 120.0
# Requests answered with 503 are retried for this long.
BUSY_SECS = 30.0
AGAIN_SECS = 0.5
BUSY, NOTHING_MORE = 503, 204
MOST_AGAIN_SECS = 5.0
_T = TypeVar("_T")


class ServiceProblem(PikaciError):
    """The service answered with an error; `status` is its HTTP status."""

    def __init__(self, document: ProblemDocument) -> None:
        super().__init__(document.title, details=document.detail, resolution=document.resolution)
        self.status = document.status


class ServiceRefused(ServiceProblem, UsageError):
    """The request must be changed (400, 401, 422 and the like)."""


class NotThere(ServiceProblem, NotFound):
    """The service knows nothing with this name (404)."""


class KeyTakenThere(ServiceProblem, KeyTaken):
    """The service has other jobs with this key (409)."""


class QueueFullThere(ServiceProblem, QueueFull):
    """The service's queue has no room (429)."""


_KINDS = {404: NotThere, 409: KeyTakenThere, 429: QueueFullThere}


class ServiceGone(PikaciError):
    """No service answers."""


class JobAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The fields used of a `JobDocument`. Fewer fields tolerate services of other versions."""

    id: str
    verdict: Verdict | None
    snapshot: ev.SnapshotRef | None


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The fields used of a `RunDocument`."""

    id: str
    jobs: tuple[JobAnswer, ...]
    warnings: tuple[str, ...] = ()


class _RetryClock:
    """How long a call has failed, and when to retry it.

    There is one clock for missing answers, and one for answers that the service is busy. Each
    starts at its first failure. A success stops both, a busy answer only the first.
    """

    def __init__(self) -> None:
        self.succeeds()

    def succeeds(self) -> None:
        """Note a success."""
        self._silent_since: float | None = None
        self._busy_since: float | None = None
        self._delay = AGAIN_SECS

    def silent_secs(self) -> float:
        """Note a missing answer; return the seconds since the first one in a row."""
        now = trio.current_time()
        self._silent_since = now if self._silent_since is None else self._silent_since
        return now - self._silent_since

    def busy_secs(self) -> float:
        """Note a busy answer; return the seconds since the first one."""
        now = trio.current_time()
        self._silent_since = None
        self._busy_since = now if self._busy_since is None else self._busy_since
        return now - self._busy_since

    def next_delay(self) -> float:
        """Seconds to wait before the next try."""
        delay, self._delay = self._delay, min(2 * self._delay, MOST_AGAIN_SECS)
        return delay * random.uniform(0.75, 1.25)


class Client:
    """One service. Made by `open_client`."""

    def __init__(self, http: httpx.AsyncClient, where: str) -> None:
        self._http = http
        self._where = where

    async def submit(self, run: SubmitRun, *, key: str) -> RunAnswer:
        """Submit a run; a key is submitted once. `ServiceProblem` if it is refused."""
        return await self._post("/v1/runs", run, RunAnswer, {"Idempotency-Key": key})

    async def get(self, path: str, type: type[_T]) -> _T:
        """A resource of the API. `NotThere` if there is none."""
        return await self._send("GET", path, type)

    async def cancel(self, job: str, cancel: Cancel) -> JobAnswer:
        """Cancel a job; return when it is dead."""
        return await self._post(f"/v1/jobs/{job}/cancel", cancel, JobAnswer, {})

    async def entries(self, job: str) -> AsyncIterator[ev.Entry]:
        """A job's entries, each once, until it has ended. Lost connections are restored."""
        async for _, data in self._follow(f"/v1/jobs/{job}/events"):
            yield recorded.decode(data)

    async def log(self, job: str) -> AsyncGenerator[LogPiece, None]:
        """A job's log, live, each byte once, until the job has ended."""
        async for id, data in self._follow(f"/v1/jobs/{job}/log/events"):
            attempt, _, end = id.partition(b".")
            yield LogPiece(int(attempt), int(end), base64.b64decode(data))

    async def _follow(self, path: str) -> AsyncIterator[tuple[bytes, bytes]]:
        """Id and data of a stream's events, each once, until the service has no more.

        A lost or refused stream is retried for as long as `_post` retries.
        """
        last = b""
        clock = _RetryClock()
        while True:
            came = False
            try:
                async with self._http.stream(
                    "GET",
                    path,
                    headers={"Last-Event-ID": last.decode()} if last else {},
                    timeout=httpx.Timeout(QUIET_SECS, pool=None),
                ) as answer:
                    await _check(answer)
                    if answer.status_code == NOTHING_MORE:
                        return
                    clock.succeeds()
                    async for fields in _events(answer):
                        if b"id" in fields:
                            last, came = fields[b"id"], True
                            yield last, fields[b"data"]
            except (httpx.TransportError, ServiceProblem) as error:
                await self._again(error, clock)
            else:
                if not came:
                    await trio.sleep(AGAIN_SECS)

    async def _post(
        self, path: str, body: msgspec.Struct, type: type[_T], headers: dict[str, str]
    ) -> _T:
        headers = {"Content-Type": "application/json", **headers}
        return await self._send("POST", path, type, msgspec.json.encode(body), headers)

    async def _send(
        self,
        method: str,
        path: str,
        type: type[_T],
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> _T:
        """Send, and retry while the answer is lost. All our requests are idempotent."""
        clock = _RetryClock()
        while True:
            try:
                answer = await self._http.request(method, path, content=content, headers=headers)
                await _check(answer)
            except (httpx.TransportError, ServiceProblem) as error:
                await self._again(error, clock)
            else:
                return msgspec.json.decode(answer.content, type=type)

    async def _again(
        self, error: httpx.TransportError | ServiceProblem, clock: _RetryClock
    ) -> None:
        """Wait for the next try; raise an error that retries do not cure, or not in time."""
        if isinstance(error, ServiceProblem):
            if error.status != BUSY or clock.busy_secs() > BUSY_SECS:
                raise error
        elif clock.silent_secs() > AWAY_SECS:
            raise self._gone(error) from error
        await trio.sleep(clock.next_delay())

    def _gone(self, error: httpx.TransportError) -> ServiceGone:
        return ServiceGone(
            f"the service on {self._where} does not answer: {error}",
            resolution="is `pikaci serve` running? No submitted job is lost: its next start,"
            " or `pikaci resume`, resumes them",
        )


async def _events(answer: httpx.Response) -> AsyncIterator[dict[bytes, bytes]]:
    """The fields of each event, and an empty dict for each comment, however the bytes are split.

    Only a line feed ends a line: the output of a job may contain other line breaks.
    """
    rest = b""
    async for chunk in answer.aiter_raw():
        *events, rest = (rest + chunk).split(b"\n\n")
        for event in events:
            fields = (line.partition(b": ") for line in event.split(b"\n"))
            yield {name: value for name, _, value in fields if name}


async def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    await answer.aread()
    try:
        document = msgspec.json.decode(answer.content, type=ProblemDocument)
    except msgspec.MsgspecError:
        document = ProblemDocument(
            status=answer.status_code, title=f"the service answered {answer.status_code}"
        )
    refused = ServiceRefused if document.status < 500 else ServiceProblem
    raise _KINDS.get(document.status, refused)(document)


def submission_of(request: Request) -> SubmitRun:
    """What is sent for a request of the library; its key is sent beside it."""
    return SubmitRun(
        workspace=str(request.workspace),
        jobs=dict(request.specs),
        include=request.include,
        exclude=request.exclude,
        git=request.git,
        fresh=request.fresh,
        fail_fast=request.fail_fast,
        hosts=request.hosts,
        snapshot=request.snapshot.ref if request.snapshot is not None else None,
    )


@asynccontextmanager
async def open_client(socket: Path) -> AsyncIterator[Client]:
    """A client of the service that listens on the socket. The path may have any length."""
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        # Without TLS there is no need to load the host's certificates, which takes 30 ms and more.
        transport = httpx.AsyncHTTPTransport(
            uds=f"/proc/self/fd/{directory}/{socket.name}",
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
        timeout = httpx.Timeout(ANSWER_SECS, pool=None)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://pikaci", timeout=timeout
        ) as http:
            yield Client(http, str(socket))
    finally:
        os.close(directory)


@asynccontextmanager
async def open_tcp_client(url: str, token: str) -> AsyncIterator[Client]:
    """A client of the service at this URL, such as "http://127.0.0.1:8080"."""
    # As above; and the variables of this process name no proxy that would see the token.
    plain = url.startswith("http://")
    transport = httpx.AsyncHTTPTransport(
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True
    )
    async with httpx.AsyncClient(
        transport=transport,
        base_url=url,
        headers={"Authorization": f"Bearer {token}"},
        timeout=httpx.Timeout(ANSWER_SECS, pool=None),
    ) as http:
        yield Client(http, url)
