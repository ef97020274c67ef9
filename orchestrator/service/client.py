"""Talks to a service over its unix socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec
import trio

from orchestrator.service.types import (
    Cancel,
    JobDocument,
    ProblemDocument,
    RunDocument,
    SubmitRun,
)
from states import events as ev
from states import recorded
from states.errors import PikaciError

ANSWER_SECS = 120.0
AGAIN_SECS = 0.5
BUSY = 503
# A service that was restarted is back within this time, or is taken for gone.
AWAY_SECS = 30.0
_T = TypeVar("_T")


class ServiceProblem(PikaciError):
    """The service has said no; `status` is that of its answer."""

    def __init__(self, document: ProblemDocument) -> None:
        super().__init__(document.title, details=document.detail, resolution=document.resolution)
        self.status = document.status


class ServiceGone(PikaciError):
    """Nobody answers on the socket."""


class Client:
    """One service. Made by `open_client`."""

    def __init__(self, http: httpx.AsyncClient, socket: Path) -> None:
        self._http = http
        self._socket = socket

    async def submit(self, run: SubmitRun, *, key: str) -> RunDocument:
        """Submit a run, once for its key. `ServiceProblem` says why not."""
        return await self._post("/v1/runs", run, RunDocument, {"Idempotency-Key": key})

    async def cancel(self, job: str, cancel: Cancel) -> JobDocument:
        """End a job; returns when it is dead."""
        return await self._post(f"/v1/jobs/{job}/cancel", cancel, JobDocument, {})

    async def entries(self, job: str) -> AsyncIterator[ev.Entry]:
        """A job's entries, each once, to its end; a connection that is lost is made anew."""
        after, deadline = 0, trio.current_time() + AWAY_SECS
        while True:
            try:
                async with self._http.stream(
                    "GET", f"/v1/jobs/{job}/events", params={"after": after}
                ) as answer:
                    await _check(answer)
                    if answer.status_code == 204:
                        return
                    fields: dict[str, str] = {}
                    async for line in answer.aiter_lines():
                        if line:
                            name, _, value = line.partition(": ")
                            fields[name] = value
                        elif "id" in fields:
                            after = int(fields["id"])
                            deadline = trio.current_time() + AWAY_SECS
                            yield recorded.decode(fields["data"].encode())
                            fields = {}
            except (httpx.TransportError, ServiceProblem) as error:
                await self._again(error, deadline)

    async def log(self, job: str) -> AsyncIterator[bytes]:
        """A job's log as it grows, to its end, each byte once."""
        after, deadline = 0, trio.current_time() + AWAY_SECS
        while True:
            try:
                async with self._http.stream(
                    "GET", f"/v1/jobs/{job}/log", params={"follow": "true", "after": after}
                ) as answer:
                    await _check(answer)
                    async for chunk in answer.aiter_raw():
                        after += len(chunk)
                        deadline = trio.current_time() + AWAY_SECS
                        yield chunk
                    return
            except (httpx.TransportError, ServiceProblem) as error:
                await self._again(error, deadline)

    async def _again(self, error: httpx.TransportError | ServiceProblem, deadline: float) -> None:
        """Wait for the next try of a stream; raises what a try does not mend, or did not."""
        late = trio.current_time() > deadline
        if isinstance(error, ServiceProblem):
            if late or error.status != BUSY:
                raise error
        elif late:
            raise self._gone(error) from error
        await trio.sleep(AGAIN_SECS)

    async def _post(
        self, path: str, body: msgspec.Struct, type: type[_T], headers: dict[str, str]
    ) -> _T:
        try:
            answer = await self._http.post(
                path,
                content=msgspec.json.encode(body),
                headers={"Content-Type": "application/json", **headers},
            )
        except httpx.TransportError as error:
            raise self._gone(error) from error
        await _check(answer)
        return msgspec.json.decode(answer.content, type=type)

    def _gone(self, error: httpx.TransportError) -> ServiceGone:
        return ServiceGone(
            f"the service on {self._socket} does not answer: {error}",
            resolution="is `pikaci serve` running? Jobs that it took are not lost: its next start,"
            " or `pikaci resume`, goes on with them",
        )


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
    raise ServiceProblem(document)


@asynccontextmanager
async def open_client(socket: Path) -> AsyncIterator[Client]:
    """A client of the service that listens on the socket, whose path may be of any length."""
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        transport = httpx.AsyncHTTPTransport(uds=f"/proc/self/fd/{directory}/{socket.name}")
        timeout = httpx.Timeout(ANSWER_SECS, pool=None)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://pikaci", timeout=timeout
        ) as http:
            yield Client(http, socket)
    finally:
        os.close(directory)
