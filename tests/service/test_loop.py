"""No answer of the service blocks the loop."""

from __future__ import annotations

from pathlib import Path

import trio

from orchestrator.service.api.operations import OPERATIONS
from orchestrator.service.logs import logging_to
from tests.blocking import watch_blocking
from tests.service.served import Served, open_served

PAGES = (
    "/",
    "/?verdict=passed",
    "/runs/{run}",
    "/jobs/{job}",
    "/parts/board?run={run}",
    "/parts/jobs/{job}",
    "/metrics",
    "/healthz",
    "/readyz",
    "/v1/openapi.json",
    "/nothing",
)


async def test_no_answer_blocks_the_loop(tmp_path: Path) -> None:
    """Every operation and page, for an ended, a running and a queued job."""
    with logging_to((tmp_path / "log").write_bytes, as_json=True):
        async with open_served() as served:
            report = await _answers(served)

    assert "" == report
    assert (tmp_path / "log").read_bytes()


async def _answers(served: Served) -> str:
    """What blocked the loop meanwhile."""
    with watch_blocking() as blocking:
        ended = await served.submit("echo one > /artifacts/a; echo two", **{"Idempotency-Key": "k"})
        await served.submit("echo one > /artifacts/a; echo two", **{"Idempotency-Key": "k"})
        await served.orchestrator.job(ended["id"]).wait()
        await served.settled(ended["id"])
        sleeps = await served.submit("echo here; sleep 10000")
        await served.started(sleeps["id"])
        asked = {(operation.method, operation.path) for operation in OPERATIONS}
        asked -= {("POST", "/v1/runs")}
        for job in (ended, sleeps):
            names = {"{job}": job["id"], "{run}": job["run"], "{path:path}": "a"}
            gets = [path for method, path in sorted(asked) if method == "GET"]
            for path in (*gets, *PAGES):
                for name, value in names.items():
                    path = path.replace(name, value)
                with trio.move_on_after(0.5):
                    async with served.http.stream("GET", path) as answer:
                        assert answer.status_code < 500
                        async for _ in answer.aiter_bytes():
                            pass
            with trio.move_on_after(0.5):
                path = f"/v1/jobs/{job['id']}/log?follow=true"
                async with served.http.stream("GET", path) as answer:
                    async for _ in answer.aiter_bytes():
                        pass
        for path in (f"/v1/jobs/{sleeps['id']}/cancel", f"/v1/runs/{sleeps['run']}/cancel"):
            answer = await served.http.post(path, json={"now": True})
            assert 200 == answer.status_code
    return blocking.report()
