"""The tests of a job, over HTTP and on its page."""

from __future__ import annotations

from typing import Any

from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from tests.service.answers import problem
from tests.service.served import Served, open_served
from tests.web.test_html import HTML, check_harmless

EVIL = "&lt;script&gt;alert(1)&lt;/script&gt;\u202e"
FAILURES = "".join(
    f"<testcase classname='c{EVIL}' name='bad{n}{EVIL}' time='0.5'><failure message='m{EVIL}'/>"
    "</testcase>"
    for n in range(12)
)
REPORT = f"<testsuite><testcase name='good' time='9'/>{FAILURES}</testsuite>".encode()


async def script(command: GuestCommand) -> GuestOutcome:
    if command.text == "test":
        return GuestOutcome(exit_code=3, artifacts={"junit.xml": REPORT})
    return GuestOutcome()


async def job_of(served: Served, command: str) -> Any:
    job = {"command": command, "artifacts": ["*"]}
    body = {"workspace": served.workspace, "jobs": {"test": job}}
    run = (await served.http.post("/v1/runs", json=body)).json()
    (ended,) = await (await served.orchestrator.find_run(run["id"])).wait()
    return (await served.http.get(f"/v1/jobs/{ended.id}")).json()


async def test_the_tests_of_a_job_come_in_pages() -> None:
    """With a summary; in the order of the report; by outcome if asked."""
    async with open_served(guest_script=script) as served:
        job = await job_of(served, "test")
        path = f"/v1/jobs/{job['id']}/tests"
        first = (await served.http.get(f"{path}?limit=5")).json()
        rest = (await served.http.get(f"{path}?after={first['next']}")).json()
        passed = (await served.http.get(f"{path}?outcome=passed")).json()
        await problem(await served.http.get(f"{path}?limit=1001"), 400)
        await problem(await served.http.get(f"{path}?outcome=odd"), 400)
        await problem(await served.http.get("/v1/jobs/nope.1/tests"), 404)

    assert job["tests"] == first["report"] == rest["report"]
    assert (13, 1, 12) == tuple(job["tests"][key] for key in ("total", "passed", "failed"))
    assert (10, 10) == (len(job["tests"]["failures"]), len(job["tests"]["slowest"]))
    names = [case["name"] for page in (first, rest) for case in page["tests"]]
    assert ["good", *(f"bad{n}<script>alert(1)</script>\u202e" for n in range(12))] == names
    assert None is rest["next"] and None is passed["next"]
    assert [{"name": "good", "outcome": "passed", "secs": 9.0}] == passed["tests"]
    name, message = (f"{text}<script>alert(1)</script>\u202e" for text in ("bad0", "m"))
    assert job["reason"] == f"12 of 13 tests failed: {name}: {message}, and 11 more tests"
    assert job["failure"]["message"].startswith(f"{job['reason']}\nbad1<script>")
    assert (3, "test command exited with 3") == (job["exit_code"], job["message"])


async def test_a_job_without_a_report_has_no_tests() -> None:
    async with open_served(guest_script=script) as served:
        job = await job_of(served, "true")
        answer = (await served.http.get(f"/v1/jobs/{job['id']}/tests")).json()

    assert None is job["tests"]
    assert {"report": None, "tests": [], "next": None} == answer


async def test_a_page_tells_which_tests_failed() -> None:
    """What a report says is text, whatever it is."""
    async with open_served(guest_script=script) as served:
        job = await job_of(served, "test")
        page = (await served.http.get(f"/jobs/{job['id']}", headers=HTML)).text
        board = (await served.http.get("/", headers=HTML)).text

    check_harmless(page)
    check_harmless(board)
    assert "12 of 13 tests failed: bad0&lt;script&gt;" in page
    assert "12 of 13 tests failed: bad0&lt;script&gt;" in board
    assert all(
        ": m&lt;script&gt;" in shown and "and 11 more tests" in shown for shown in (page, board)
    )
    # It may be longer than its box: then a keyboard must be able to scroll it.
    assert 'tabindex="0" role="region" aria-label="why it failed"' in page
    # The exit code is beside the headline; the other tests have lines below it.
    assert "and 11 more tests <small>exit code 3</small><span" in page
    assert page.index("<small>exit code 3</small>") < page.index("\nbad1&lt;script&gt;")
    assert page.index("bad9") < page.index('id="slowest-tests"') < page.index("good")
    assert f"/v1/jobs/{job['id']}/tests" in page
