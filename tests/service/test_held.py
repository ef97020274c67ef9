"""`POST /v1/runs?while=held`: a run that lives no longer than its submitter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import trio

from orchestrator import JobSpec
from orchestrator.service import held, limits
from orchestrator.service.held import HeldRuns
from states.outcome import Verdict
from tests.service.answers import problem
from tests.service.served import Served, open_served


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the half minute of a service."""
    monkeypatch.setattr(held, "HELD_SECS", 1.0)
    monkeypatch.setattr(held, "LOOK_SECS", 0.05)


@asynccontextmanager
async def holding(
    served: Served, command: str, *, key: str = ""
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[Any]]]:
    """Submit a job and hold its run: the answer, and the documents that come."""
    async with served.http.stream(
        "POST",
        "/v1/runs?while=held",
        json={"workspace": served.workspace, "jobs": {"job": {"command": command}}},
        headers={"Idempotency-Key": key} if key else {},
    ) as answer:
        assert answer.is_success, await answer.aread()
        yield answer, documents(answer)


async def documents(answer: httpx.Response) -> AsyncIterator[Any]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield msgspec.json.decode(line.removeprefix("data: "))


async def test_a_held_run_tells_its_end() -> None:
    """First the run as it was submitted, then as it ended; then the stream ends."""
    async with open_served() as served, holding(served, "echo one") as (answer, found):
        first, last = [document async for document in found]

    assert 200 == answer.status_code
    assert first["id"] == last["id"]
    assert [None, "passed"] == [one["jobs"][0]["verdict"] for one in (first, last)]


async def test_a_run_whose_submitter_is_gone_is_cancelled() -> None:
    """Not one that was submitted in the usual way."""
    async with open_served() as served:
        other = await served.submit("sleep 10000")
        async with holding(served, "sleep 10000") as (_, found):
            run = await anext(found)
            await served.started(run["jobs"][0]["id"])
        job = await served.orchestrator.job(run["jobs"][0]["id"]).wait()
        there = await served.orchestrator.job(other["id"]).fetch()
        await served.orchestrator.cancel([other["id"]])

    assert Verdict.CANCELLED == job.verdict
    assert job.failure is not None
    assert "its submitter is gone" in job.failure.message
    assert not there.ended


async def test_a_run_is_not_cancelled_while_somebody_holds_it() -> None:
    """Also not when its submitter comes back in time, with the same key."""
    async with open_served() as served:
        async with holding(served, "sleep 10000", key="one") as (_, found):
            run = await anext(found)
            job = served.orchestrator.job(run["jobs"][0]["id"])
            await trio.sleep(3)
            assert not (await job.fetch()).ended
        async with holding(served, "sleep 10000", key="one") as (_, found):
            again = await anext(found)
            await trio.sleep(3)
            assert not (await job.fetch()).ended
        assert Verdict.CANCELLED == (await job.wait()).verdict

    assert run["id"] == again["id"]


async def test_a_run_that_was_submitted_in_the_usual_way_survives_who_only_held_it() -> None:
    """Its submitter did not ask for that; it has the same key."""
    async with open_served() as served:
        jobs = {"job": {"command": "sleep 10000"}}
        answer = await served.http.post(
            "/v1/runs",
            json={"workspace": served.workspace, "jobs": jobs},
            headers={"Idempotency-Key": "one"},
        )
        async with holding(served, "sleep 10000", key="one") as (_, found):
            run = await anext(found)
        await trio.sleep(3)
        there = await served.orchestrator.job(run["jobs"][0]["id"]).fetch()
        await served.orchestrator.cancel([there.id])

    assert answer.json()["id"] == run["id"]
    assert not there.ended


async def test_a_held_run_is_known_after_a_restart() -> None:
    """The journal has it: whoever takes the service over cancels it, if nobody comes back."""
    async with open_served() as served:
        async with holding(served, "sleep 10000") as (_, found):
            run = await anext(found)
            job = served.orchestrator.job(run["jobs"][0]["id"])
            other = await served.orchestrator.submit(JobSpec(command="sleep 10000"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(HeldRuns(served.orchestrator).watch)
                ended = await job.wait()
                nursery.cancel_scope.cancel()
        assert not (await other.fetch()).ended
        await other.cancel()

    assert Verdict.CANCELLED == ended.verdict


async def test_only_held_can_be_asked_for() -> None:
    async with open_served() as served:
        for query in ("while=forever", "for=held"):
            answer = await served.http.post(f"/v1/runs?{query}", json={})
            await problem(answer, 400)


async def test_a_held_run_that_finds_no_place_is_not_submitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each held run takes a stream; without one the request is refused, and there is no run."""
    monkeypatch.setattr(limits, "MAX_STREAMS", 1)
    async with open_served() as served:
        async with holding(served, "sleep 10000") as (_, found):
            run = await anext(found)
            refused = await served.http.post(
                "/v1/runs?while=held",
                json={"workspace": served.workspace, "jobs": {"job": {"command": "true"}}},
            )
            there = (await served.http.get("/v1/jobs")).json()
        await served.orchestrator.job(run["jobs"][0]["id"]).wait()
        wrong = await served.http.post(
            "/v1/runs?while=held", json={"workspace": served.workspace, "jobs": {}}
        )
        async with holding(served, "true") as (_, found):
            last = [document async for document in found][-1]

    assert 503 == refused.status_code
    assert 1 == len(there["jobs"])
    assert 422 == wrong.status_code
    assert "passed" == last["jobs"][0]["verdict"]
