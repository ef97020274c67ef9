"""A service says how many guests are warm: over HTTP, on its page, and in its metrics."""

from __future__ import annotations

import trio

from orchestrator import JobSpec, WarmGuests
from orchestrator.service.metrics import Metrics
from tests.service.served import open_served
from tests.service.test_metrics import figures
from tests.web.test_output_pages import page


async def test_they_are_counted_everywhere() -> None:
    """Where no guest is warm, the page says nothing of it."""
    async with open_served(warm=WarmGuests(size=1)) as served:
        orchestrator = served.orchestrator
        none = await page(served, "/")
        await orchestrator.submit_and_wait(JobSpec(command="true"))
        with trio.fail_after(60):
            while not orchestrator.statistics().warm or orchestrator.queue.held:
                await trio.sleep(0.01)
        numbers = (await served.http.get("/v1/statistics")).json()
        board, parts = await page(served, "/"), await page(served, "/parts/board")
        instances = await figures(Metrics(orchestrator), "pikaci_instances")

    assert "warm guest" not in none
    assert (1, 0) == (numbers["warm"], numbers["booting"])
    assert "0 running, 1 warm guest</span>" in board
    assert "0 running, 1 warm guest</span>" in parts
    assert {("in_use",): 0, ("warm",): 1, ("kept",): 0, ("overdue",): 0} == instances
