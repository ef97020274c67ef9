"""The client of the commands, on a service over the fake Incus."""

from __future__ import annotations

import pytest
import trio

from orchestrator.service import limits
from orchestrator.service.client import ServiceProblem, open_client
from states import events as ev
from tests.service.served import open_served


async def test_a_stream_that_finds_the_service_busy_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events and log come whole, though only one may be asked for at a time."""
    entries: list[ev.Entry] = []
    log = b""
    async with open_served() as served:
        job = (await served.submit("echo one; sleep 0.2; echo two"))["id"]
        monkeypatch.setattr(limits, "MAX_STREAMS", 1)

        async def read_log() -> None:
            nonlocal log
            async for chunk in client.log(job):
                log += chunk

        async with open_client(served.socket) as client, trio.open_nursery() as nursery:
            nursery.start_soon(read_log)
            async for entry in client.entries(job):
                entries.append(entry)

    assert [b"one", b"two"] == log.splitlines()[1:]
    assert isinstance(entries[0], ev.Submitted)
    assert any(isinstance(entry, ev.ResultCollected) for entry in entries)


async def test_a_stream_of_no_job_is_refused_at_once() -> None:
    """What another try does not mend is not tried again."""
    async with open_served() as served, open_client(served.socket) as client:
        with pytest.raises(ServiceProblem, match="no job"):
            async for _ in client.entries("none.1"):
                pass
