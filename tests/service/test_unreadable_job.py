"""If one job cannot be read, the service shows what it knows of it, and all others."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from orchestrator.service.client import ServiceProblem, open_client
from tests.samples import leave_artifacts
from tests.service.served import Served, open_served

HTML = {"Accept": "text/html"}
DAMAGE = {
    "no entry": "UPDATE entries SET body = X'00' WHERE job = ? AND seq = 2",
    "no first entry": "UPDATE entries SET body = X'00' WHERE job = ? AND seq = 1",
    "no events": "DELETE FROM entries WHERE job = ?",
}


@asynccontextmanager
async def open_damaged(damage: str, *, ended: bool = True) -> AsyncIterator[tuple[Served, str]]:
    """A service, and the id of a job of it whose events are damaged."""
    async with open_served() as served:
        job = (await served.submit("echo one > /artifacts/one; echo two"))["id"]
        await served.orchestrator.job(job).wait()
        await served.settled(job)
        leave_artifacts(served.orchestrator.job(job).directory, {"one": b"1"})
        with closing(sqlite3.connect(served.orchestrator.root.journal)) as journal, journal:
            assert journal.execute(DAMAGE[damage], (job,)).rowcount
            if not ended:
                journal.execute("UPDATE jobs SET ended = 0, state = 'running' WHERE id = ?", (job,))
        yield served, job


damages = pytest.mark.parametrize("damage", DAMAGE)


@damages
async def test_it_is_shown_as_damaged_and_hides_no_other(damage: str) -> None:
    """In a list, alone, in its run, on the board and in the metrics."""
    async with open_damaged(damage) as (served, bad):
        good = (await served.submit())["id"]
        await served.orchestrator.job(good).wait()
        await served.settled(good)
        listed = {job["id"]: job for job in (await served.http.get("/v1/jobs")).json()["jobs"]}
        alone = (await served.http.get(f"/v1/jobs/{bad}")).json()
        run = (await served.http.get(f"/v1/runs/{alone['run']}")).json()
        board = await served.http.get("/")
        metrics = (await served.http.get("/metrics")).text

    assert {bad, good} == set(listed)
    assert (None, "passed") == (listed[good]["damaged"], listed[good]["verdict"])
    for shown in (listed[bad], alone, run["jobs"][0]):
        assert shown["damaged"]
        assert "passed" != shown["verdict"]
    assert 200 == board.status_code
    assert "damaged" in board.text
    assert "pikaci_jobs_damaged 1.0" in metrics


@damages
@pytest.mark.parametrize("ended", [True, False])
async def test_its_page_says_why_and_what_is_known(damage: str, ended: bool) -> None:
    """With its log and artifacts, and no button that cannot work."""
    async with open_damaged(damage, ended=ended) as (served, job):
        page = await served.http.get(f"/jobs/{job}", headers=HTML)
        part = await served.http.get(f"/parts/jobs/{job}", headers=HTML)
        why = (await served.http.get(f"/v1/jobs/{job}")).json()["damaged"]
        run = await served.http.get(f"/runs/{job.partition('.')[0]}", headers=HTML)

    assert [200] * 3 == [answer.status_code for answer in (page, part, run)]
    for shown in (page.text, part.text):
        assert why in shown
        assert "pikaci doctor" in shown
        assert '/artifacts/one">' in shown
        assert served.workspace in shown
        assert "pikaci rerun" not in shown
        assert "/cancel" not in shown
    assert "two" in page.text


@damages
@pytest.mark.parametrize("ended", [True, False])
async def test_its_log_and_artifacts_are_there(damage: str, ended: bool) -> None:
    """They are files beside the journal. A follower of the log gets it, and does not wait."""
    async with open_damaged(damage, ended=ended) as (served, job):
        path = f"/v1/jobs/{job}"
        log = (await served.http.get(f"{path}/log")).text
        followed = (await served.http.get(f"{path}/log", params={"follow": "true"})).text
        place = await served.http.get(f"{path}/log/place", params={"line": 1})
        listed = (await served.http.get(f"{path}/artifacts")).json()
        one = await served.http.get(f"{path}/artifacts/one")
        async with open_client(served.socket) as client:
            streamed = b"".join([piece.data async for piece in client.log(job)])

    assert log.endswith("two\n")
    assert log == followed == streamed.decode()
    assert 200 == place.status_code
    assert [("one", 1)] == [(file["path"], file["size"]) for file in listed["artifacts"]]
    assert "1" == one.text


@damages
@pytest.mark.parametrize("ended", [True, False])
async def test_its_events_are_refused_with_the_reason(damage: str, ended: bool) -> None:
    """With a status that tells clients not to retry."""
    async with open_damaged(damage, ended=ended) as (served, job):
        answer = await served.http.get(f"/v1/jobs/{job}/events")
        async with open_client(served.socket) as client:
            with pytest.raises(ServiceProblem, match="cannot be read"):
                async for _ in client.entries(job):
                    pass

    assert 500 == answer.status_code
    assert "Retry-After" not in answer.headers
    assert f"the job {job} cannot be read" in answer.json()["title"]
    assert answer.json()["resolution"]


async def test_it_cannot_be_cancelled_and_that_is_said() -> None:
    """If it has not ended, nobody can cancel it."""
    async with open_damaged("no entry", ended=False) as (served, job):
        answer = await served.http.post(f"/v1/jobs/{job}/cancel", json={})

    assert 500 == answer.status_code
    assert f"the job {job} cannot be read" in answer.json()["title"]
