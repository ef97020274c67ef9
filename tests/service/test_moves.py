"""State changes of all jobs, as server-sent events."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from trio.testing import MockClock

from orchestrator.service.api import events
from orchestrator.service.types import KEEP_ALIVE_SECS
from tests.service.served import Served, open_served

WATCH_SECS = 100.0
ALIVE = ": still here"


@pytest.fixture(autouse=True)
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "WATCH_SECS", WATCH_SECS)


async def watch(served: Served, after: str) -> list[str]:
    """The frames of a stream, from its begin to its end."""
    answer = await served.http.get("/v1/events", headers={"Last-Event-ID": after})
    assert 200 == answer.status_code
    return answer.text.removesuffix("\n\n").split("\n\n")


async def test_moves_come_with_signs_of_life_between_and_the_stream_ends(
    autojump_clock: MockClock,
) -> None:
    """The first frame is an id to resume from, and so is the id of each change."""
    async with open_served() as served:
        job = (await served.submit("sleep 60"))["id"]
        first, *frames = await watch(served, "0")
        await served.settled(job)
        moves = [frame.split("\n") for frame in frames if frame != ALIVE]
        ids = [int(id.removeprefix("id: ")) for id, _, _ in moves]
        again = await watch(served, str(ids[-2]))

    types = [json.loads(data.removeprefix("data: "))["type"] for _, _, data in moves]
    assert "id: 0" == first
    assert ("submitted", "result_collected") == (types[0], types[-1])
    assert sorted(set(ids)) == ids
    assert frames.count(ALIVE) >= WATCH_SECS // KEEP_ALIVE_SECS - 3
    assert [f"id: {ids[-2]}", "\n".join(moves[-1])] == again[:2]
    assert {ALIVE} == set(again[2:])


async def test_moves_that_cannot_be_read_end_no_stream(autojump_clock: MockClock) -> None:
    """They are skipped."""
    async with open_served() as served:
        job = (await served.submit("true"))["id"]
        await served.orchestrator.job(job).wait()
        await served.settled(job)
        with closing(sqlite3.connect(served.orchestrator.root.journal)) as journal, journal:
            journal.execute("UPDATE entries SET body = X'00' WHERE job = ?", (job,))
        first, *rest = await watch(served, "0")

    assert "id: 0" == first
    assert [ALIVE] * len(rest) == rest
    assert len(rest) >= WATCH_SECS // KEEP_ALIVE_SECS - 1
