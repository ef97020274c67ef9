"""The page and the API of a job: why it failed, and that it is flaky."""

from __future__ import annotations

import html
from pathlib import Path

from orchestrator import JobSpec, Request
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from tests.service.served import open_served
from tests.web.test_output_pages import page

HOSTILE = "a.c:1:2: error: <b>\u202e'vat'</b>\x1b]0;title\x07 is undeclared"
SHOWN = "a.c:1:2: error: <b>\ufffd'vat'</b> is undeclared"


async def test_a_flaky_job_says_why_it_failed_and_where_it_passed() -> None:
    """On its page, on the board and in the API; what the guest wrote steers nothing."""
    codes = iter((0, 2))

    async def script(command: GuestCommand) -> GuestOutcome:
        command.print(f"{HOSTILE}\n".encode())
        return GuestOutcome(exit_code=next(codes))

    async with open_served(guest_script=script) as served:
        jobs = []
        # What is known of a job is shown from its verdict on, while its guest is still deleted.
        served.fake.late("delete", secs=3, times=2)
        for _ in range(2):
            request = Request(Path(served.workspace), {"test": JobSpec(command="make")})
            handle = await served.orchestrator.submit_run(request)
            jobs += [job.id for job in await handle.wait()]
        passed, failed = [await page(served, f"/jobs/{job}") for job in jobs]
        board = await page(served, "/")
        data = (await served.http.get(f"/v1/jobs/{jobs[1]}")).json()
        history = (await served.http.get(f"/v1/jobs/{jobs[0]}/history")).json()
        flakes = (await served.http.get("/v1/flakes")).json()["flakes"]
        refused = [
            (await served.http.get(path)).status_code
            for path in ("/v1/jobs/none/history", "/v1/flakes?limit=101", "/v1/flakes?x=1")
        ]

    said = html.escape(SHOWN, quote=True)
    assert f"<pre>{said} <small>exit code 2</small></pre>" in failed.replace("&#39;", "&#x27;")
    assert "exit code 2" in failed
    assert 'class="flaky"' in board
    assert said in board.replace("&#39;", "&#x27;")
    runs = [job.rpartition(".")[0] for job in jobs]
    assert (
        f"flaky: failed here, passed in run {runs[0]} on the same inputs (1 of 2 passed)" in failed
    )
    assert f'<a href="/jobs/{jobs[0]}">that job</a>' in failed
    assert f"flaky: passed here, failed in run {runs[1]} on the same inputs" in passed
    assert SHOWN == data["reason"] == data["failure"]["message"]
    assert "test command exited with 2" == data["message"]
    assert {"passed": 1, "failed": 1, "other": jobs[0]} == data["flake"]
    assert (2, 1, 1, 1) == tuple(history[key] for key in ("results", "passed", "failed", "flakes"))
    assert list(reversed(jobs)) == [entry["id"] for entry in history["jobs"]]
    assert [(jobs[0], jobs[1])] == [(one["passed_job"], one["failed_job"]) for one in flakes]
    assert [404, 400, 400] == refused
