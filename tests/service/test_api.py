"""The service, over its unix socket and a fake Incus."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import jsonschema
import msgspec
import pytest
import trio

from orchestrator import Capacity
from orchestrator.service import limits
from orchestrator.service.artifacts import list_artifacts
from states import events as ev
from states import trace
from states.outcome import Verdict
from tests.samples import leave_artifacts
from tests.service.answers import events_of, problem
from tests.service.served import open_served


async def test_a_job_is_submitted_watched_and_read() -> None:
    """From the answer to the submission, to the log."""
    async with open_served() as served:
        job = await served.submit()
        seen = await events_of(served, job["id"])
        ended = (await served.http.get(f"/v1/jobs/{job['id']}")).json()
        log = (await served.http.get(f"/v1/jobs/{job['id']}/log")).content

    assert "submitted" == job["state"]
    # Notes of the end of its instance may stand behind it.
    notes = {ev.tag(note) for note in ev.Note.__subclasses__()}
    assert "result_collected" == [kind for _, kind, _ in seen if kind not in notes][-1]
    assert ("passed", 0) == (ended["verdict"], ended["exit_code"])
    assert b"one\ntwo\n" == log.split(b"\n", 1)[1]


async def test_a_stream_goes_on_behind_the_last_event_that_was_seen() -> None:
    """Nothing is repeated or lost; after the last event there is nothing to wait for."""
    async with open_served() as served:
        job = await served.submit()
        await served.settled(job["id"])
        whole = await events_of(served, job["id"])
        rest = await events_of(served, job["id"], **{"Last-Event-ID": str(whole[2][0])})
        over = await served.http.get(
            f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(whole[-1][0])}
        )
        bad = await served.http.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "x"})

    assert whole[3:] == rest
    assert 204 == over.status_code
    assert "Expected `int`" in (await problem(bad, 400))["title"]
    entries: list[ev.Entry] = [msgspec.convert(entry, ev.Entry) for _, _, entry in whole]  # type: ignore[arg-type]
    assert Verdict.PASSED is trace.replay(trace.encode(job["id"], entries)).verdict


async def test_jobs_are_listed_by_pages_and_filters() -> None:
    """Newest first; `next` leads to the last page."""
    async with open_served() as served:
        jobs = [await served.submit("true" if n % 2 else "exit 3") for n in range(5)]
        for job in jobs:
            await served.orchestrator.job(job["id"]).wait()
        pages, before = [], None
        while True:
            query = {"limit": 2, **({"before": before} if before is not None else {})}
            page = (await served.http.get("/v1/jobs", params=query)).json()
            pages.append([job["id"] for job in page["jobs"]])
            before = page["next"]
            if before is None:
                break
        failed = (await served.http.get("/v1/jobs", params={"verdict": "failed"})).json()
        one = (await served.http.get("/v1/jobs", params={"run": jobs[1]["run"]})).json()

    ids = [job["id"] for job in reversed(jobs)]
    assert [ids[:2], ids[2:4], ids[4:]] == pages
    assert ids[::2] == [job["id"] for job in failed["jobs"]]
    assert [jobs[1]["id"]] == [job["id"] for job in one["jobs"]]


async def test_a_job_is_cancelled_over_http() -> None:
    """The answer comes when it is dead; a second request changes nothing."""
    async with open_served() as served:
        job = await served.submit("sleep 10000")
        await served.started(job["id"])
        path = f"/v1/jobs/{job['id']}/cancel"
        answer = await served.http.post(path, json={"now": True, "reason": "not needed"})
        again = await served.http.post(path, json={})

    assert ("cancelled", "cancelled: not needed") == (
        answer.json()["verdict"],
        answer.json()["failure"]["message"],
    )
    assert answer.json() == again.json()


async def test_a_log_is_followed_and_read_by_ranges() -> None:
    """While it grows; ranges follow RFC 9110."""
    async with open_served() as served:
        job = await served.submit("echo one; sleep 1; echo two")
        path = f"/v1/jobs/{job['id']}/log"
        followed = (await served.http.get(path, params={"follow": "true"})).content
        whole = (await served.http.get(path)).content

        async def part(span: str) -> tuple[int, bytes]:
            answer = await served.http.get(path, headers={"Range": span})
            return answer.status_code, answer.content

        assert followed == whole
        assert whole.endswith(b"one\ntwo\n")
        assert (206, whole[2:5]) == await part("bytes=2-4")
        assert (206, whole[-4:]) == await part("bytes=-4")
        assert (206, whole[7:]) == await part("bytes=7-")
        assert (416, b"") == await part(f"bytes={len(whole)}-")
        assert (206, whole) == await part("bytes=0-99999")
        assert (200, whole) == await part("lines=1-2")
        assert (200, whole) == await part("bytes=5-2")
        assert (416, b"") == await part("bytes=-0")
        head = await served.http.head(path)
        assert (200, str(len(whole))) == (head.status_code, head.headers["content-length"])


async def test_any_range_of_an_empty_log_is_empty() -> None:
    """A page that asks early for the log's end is answered, and not refused."""
    async with open_served(capacity=Capacity(jobs=1)) as served:
        await served.submit("sleep 10000")
        queued = await served.submit("true")
        path = f"/v1/jobs/{queued['id']}/log"
        directory = served.orchestrator.root.attempt_dir(queued["id"], 1)
        directory.mkdir(parents=True)
        (directory / "guest.log").touch()

        answers = [
            await served.http.get(path, headers={"Range": f"bytes={span}"})
            for span in ("-99", "0-")
        ]
        served.orchestrator.detach()

    assert [(200, b"")] * 2 == [(answer.status_code, answer.content) for answer in answers]


async def test_artifacts_are_files_that_the_job_left_and_nothing_else() -> None:
    """Whatever the path is, and whatever is there."""
    async with open_served() as served:
        job = await served.submit()
        await served.orchestrator.job(job["id"]).wait()
        attempt = served.orchestrator.job(job["id"]).directory
        leave_artifacts(attempt, {"sub/page.html": b"<script>alert(1)</script>", "a": b""})
        there = attempt / "artifacts"
        (there / "link").symlink_to("/etc/passwd")
        (there / "up").symlink_to("..")
        os.mkfifo(there / "pipe")
        base = f"/v1/jobs/{job['id']}/artifacts"
        listed = (await served.http.get(base)).json()["artifacts"]
        page = await served.http.get(f"{base}/sub/page.html")
        refused = [
            await served.http.get(f"{base}/{path}")
            for path in ("link", "up/guest.log", "pipe", "sub", "%2e%2e/guest.log", "a%00b", "nope")
        ]

    assert ["a", "sub/page.html"] == [file["path"] for file in listed]
    digest = hashlib.sha256(page.content).hexdigest()
    assert {"path": "sub/page.html", "size": 25, "sha256": digest} == listed[1]
    assert b"<script>alert(1)</script>" == page.content
    assert ("application/octet-stream", "attachment", "nosniff") == (
        page.headers["content-type"],
        page.headers["content-disposition"],
        page.headers["x-content-type-options"],
    )
    assert {404} == {answer.status_code for answer in refused}


def test_what_was_not_collected_whole_is_no_artifact(tmp_path: Path) -> None:
    """The manifest lists what was collected; other files may be incomplete."""
    leave_artifacts(tmp_path, {"whole": b"1"})
    (tmp_path / "artifacts" / "half").write_bytes(b"1")
    whole = list_artifacts(tmp_path / "artifacts")
    (tmp_path / "manifest.json").write_bytes(b'{"files": [')
    damaged = list_artifacts(tmp_path / "artifacts")
    (tmp_path / "manifest.json").unlink()

    assert (["whole"], []) == ([file.path for file in whole], damaged)
    assert [] == list_artifacts(tmp_path / "artifacts")


async def test_what_is_not_there_and_what_is_not_taken_is_said() -> None:
    """As problem documents, like all other errors."""
    async with open_served() as served:
        get, post = served.http.get, served.http.post
        assert "no job" in (await problem(await get("/v1/jobs/x"), 404))["title"]
        assert "no run" in (await problem(await get("/v1/runs/x"), 404))["title"]
        await problem(await get("/v1/nothing"), 404)
        await problem(await get("/v1/jobs/"), 404)
        await problem(await served.http.delete("/v1/jobs"), 405)
        await problem(await post("/v1/runs", content=b"{}"), 415)
        await problem(await get("/v1/jobs", params={"state": "happy"}), 400)
        await problem(await get("/v1/jobs", params={"nonsense": "1"}), 400)


async def test_a_body_that_is_too_large_or_too_slow_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """413 and 408; the service lives."""
    monkeypatch.setattr(limits, "MAX_BODY_BYTES", 1000)
    monkeypatch.setattr(limits, "BODY_SECS", 0.3)
    async with open_served() as served:
        headers = {"Content-Type": "application/json"}
        large = await served.http.post("/v1/runs", content=b"x" * 1001, headers=headers)
        async with await trio.open_unix_socket(str(served.socket)) as slow:
            await slow.send_all(
                b"POST /v1/runs HTTP/1.1\r\nHost: pikaci\r\nContent-Type: application/json\r\n"
                b"Content-Length: 10\r\n\r\n{"
            )
            with trio.fail_after(20):
                late = await slow.receive_some()
        alive = await served.http.get("/healthz")

    await problem(large, 413)
    assert late.startswith(b"HTTP/1.1 408")
    assert 200 == alive.status_code


async def test_the_document_says_what_the_service_does() -> None:
    """Answers match /v1/openapi.json."""
    async with open_served() as served:
        document = (await served.http.get("/v1/openapi.json")).json()
        job = await served.submit()
        await served.orchestrator.job(job["id"]).wait()
        answers = {
            "JobDocument": (await served.http.get(f"/v1/jobs/{job['id']}")).json(),
            "RunDocument": (await served.http.get(f"/v1/runs/{job['run']}")).json(),
            "JobPage": (await served.http.get("/v1/jobs")).json(),
            "Statistics": (await served.http.get("/v1/statistics")).json(),
            "ProblemDocument": (await served.http.get("/v1/jobs/x")).json(),
        }

    assert "3.1.0" == document["openapi"]
    for name, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(answer, schema)


async def test_a_stream_of_events_has_no_head() -> None:
    """It would last as long as the job."""
    async with open_served() as served:
        job = await served.submit("sleep 10000")
        refused = await served.http.head(f"/v1/jobs/{job['id']}/events")
        head = await served.http.head(f"/v1/jobs/{job['id']}/log", params={"follow": "true"})
        await served.orchestrator.cancel([job["id"]], now=True)

    assert (405, "GET") == (refused.status_code, refused.headers["allow"])
    assert 200 == head.status_code
