"""The service, over its unix socket and a fake Incus."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
import trio

from orchestrator import Capacity, UsageError
from orchestrator.service import limits
from orchestrator.service.app import make_app
from orchestrator.service.artifacts import list_artifacts
from orchestrator.service.server import read_token, tcp_socket, unix_socket
from orchestrator.service.token import RequireToken
from states import events as ev
from states import trace
from states.outcome import Verdict
from tests.samples import leave_artifacts
from tests.service.served import Served, open_served


async def events_of(served: Served, job: str, **headers: str) -> list[tuple[int, str, Any]]:
    """The events of one stream: number, type, document."""
    found = []
    async with served.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "id" in fields:
                document = msgspec.json.decode(fields["data"])
                found.append((int(fields["id"]), fields["event"], document))
                fields = {}
    return found


async def problem(answer: Any, status: int) -> dict[str, Any]:
    assert (status, "application/problem+json") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    document: dict[str, Any] = answer.json()
    assert status == document["status"]
    return document


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


async def test_a_key_is_submitted_once() -> None:
    """First 201, then 200; other jobs with the key are a conflict."""
    async with open_served() as served:
        key = {"Idempotency-Key": "build 7"}
        body = {"workspace": served.workspace, "jobs": {"a": {"command": "true"}}}
        first = await served.http.post("/v1/runs", json=body, headers=key)
        again = await served.http.post("/v1/runs", json=body, headers=key)
        body["jobs"] = {"a": {"command": "false"}}
        other = await served.http.post("/v1/runs", json=body, headers=key)

    assert (201, 200) == (first.status_code, again.status_code)
    assert first.json()["id"] == again.json()["id"]
    assert "another submission" in (await problem(other, 409))["title"]


@pytest.mark.parametrize(
    "change",
    [
        {"include": ["*.log"]},
        {"exclude": ["*.log"]},
        {"git": True},
        {"workspace": "/tmp"},
        {"jobs": {"a": {"command": "true", "priority": 1}}},
        {"jobs": {"b": {"command": "true"}}},
        {"snapshot": {"hash": "0" * 64, "commit": None, "dirty": None}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_key_stands_for_all_that_was_asked(change: dict[str, Any]) -> None:
    """409 for any difference; a repeated request gets the same run, even if the disk has changed."""
    async with open_served() as served:
        key = {"Idempotency-Key": "build 7"}
        there = Path(served.workspace).parent / "mounted"
        there.mkdir()
        mounts = [{"source": str(there), "path": "/data"}]
        body = {
            "workspace": served.workspace,
            "jobs": {"a": {"command": "true", "mounts": mounts}},
            "include": ["*.txt"],
        }
        first = await served.http.post("/v1/runs", json=body, headers=key)
        there.rmdir()
        again = await served.http.post("/v1/runs", json=body, headers=key)
        other = await served.http.post("/v1/runs", json={**body, **change}, headers=key)

    assert (201, 200) == (first.status_code, again.status_code), again.text
    assert first.json()["id"] == again.json()["id"]
    assert "another submission" in (await problem(other, 409))["title"]


@pytest.mark.parametrize(
    "keys",
    [[""], ["a" * 201], ["a", "a"], ["a\tb"]],
    ids=["empty", "long", "two", "tab"],
)
async def test_a_key_that_is_none_is_refused(keys: list[str]) -> None:
    """A retry with it would be another run."""
    async with open_served() as served:
        body = {"workspace": served.workspace, "jobs": {"a": {"command": "true"}}}
        headers = [("Idempotency-Key", key) for key in keys]
        answer = await served.http.post("/v1/runs", json=body, headers=headers)

        assert "Idempotency-Key" in (await problem(answer, 400))["title"]
        assert [] == served.orchestrator.journal.jobs()


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


@pytest.mark.parametrize("key", ["image", "network"])
async def test_what_the_host_does_not_have_is_refused(tmp_path: Path, key: str) -> None:
    """With 422, and no run."""
    body = {"workspace": str(tmp_path), "jobs": {"a": {"command": "true", key: "no-such"}}}
    async with open_served() as served:
        answer = await served.http.post("/v1/runs", json=body)

        told = await problem(answer, 422)
        assert f"{key} of the job a: there is no {key} no-such" in told["title"]
        assert told["resolution"]
        assert [] == served.orchestrator.journal.jobs()


async def test_all_mistakes_of_a_submission_are_told_at_once() -> None:
    """In the words of the command line: a line for each in `detail`."""
    body = b'{"workspace": "/", "jobs": {"a": {"command": "x", "timeout": 1, "cpus": 0}}}'
    async with open_served() as served:
        answer = await served.http.post(
            "/v1/runs", content=body, headers={"Content-Type": "application/json"}
        )

        told = await problem(answer, 422)
        assert "2 mistakes" == told["title"]
        assert [
            "jobs.a.timeout is an unknown key: did you mean `timeout_secs`?",
            "jobs.a.cpus is 0; allowed: a whole number from 1 to 1024",
        ] == told["detail"].splitlines()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "is not JSON"),
        (b'{"\xfc": 1}', 400, "is not JSON"),
        (b'{"workspace": "/\xfc"}', 400, "is not JSON"),
        (b'{"workspace": "\\ud800"}', 400, "is not JSON"),
        (b"\xef\xbb\xbf{}", 400, "is not JSON"),
        (b'{"workspace": NaN}', 400, "is not JSON"),
        (b"[" * 100_000, 422, "Expected `object`"),
        (b'{"jobs": {"a": {"cpus": 1e999}}}', 422, "out of range"),
        (b'{"jobs": {"a": {"cpus": %s}}}' % (b"9" * 5000), 422, "out of range"),
        (b"{}", 422, "2 mistakes"),
        (b'{"workspace": "here", "jobs": {"a": {"command": "true"}}}', 422, "workspace is 'here'"),
        (b'{"workspace": "/", "jobs": {}}', 422, "jobs is {}"),
        (
            b'{"workspace": "/", "jobs": {"a b": {"command": "true"}}}',
            422,
            "jobs has the name 'a b'",
        ),
        (
            b'{"workspace": "/", "jobs": {"a": {"command": "true", "x": 1}}}',
            422,
            "jobs.a.x is an unknown key",
        ),
        (
            b'{"workspace": "/no/such", "jobs": {"a": {"command": "true"}}}',
            400,
            "no such directory",
        ),
        (b'{"workspace": "/.", "jobs": {"a": {"command": "true"}}}', 400, "whole file system"),
        (
            b'{"workspace": "/%s", "jobs": {"a": {"command": "true"}}}' % (b"x" * 3000),
            400,
            "no such directory",
        ),
        (b'{"workspace": "/", "jobs": {"a": {"command": " "}}}', 422, "jobs.a: command is empty"),
        (
            b'{"workspace": "/", "jobs": {"a": {"command": "true", "writable_workspace": true}}}',
            422,
            "jobs.a: remote Linux VM backend `incus` does not support writable workspace jobs",
        ),
        (b'{"workspace": "/", "jobs": {"a": {"command": "true", "cpus": 64}}}', 422, "cpus 64"),
        (
            b'{"workspace": "/", "jobs": {"a": {"command": "true",'
            b' "secrets": {"T": {"env": "NOT_HERE"}}}}}',
            422,
            "jobs.a.secrets.T: the variable NOT_HERE is not set, in the service",
        ),
    ],
)
async def test_a_bad_submission_is_refused_in_words(body: bytes, status: int, words: str) -> None:
    """The answer says what is wrong, and nothing was started."""
    async with open_served(capacity=Capacity(jobs=1, cpus=8)) as served:
        answer = await served.http.post(
            "/v1/runs", content=body, headers={"Content-Type": "application/json"}
        )

        assert words in (await problem(answer, status))["title"]
        assert [] == [row for row in served.orchestrator.journal.jobs() if not row.ended]
        assert not served.fake.instances()


async def test_more_than_the_host_has_is_refused(tmp_path: Path) -> None:
    """It names the job, the key, the value and what the host has; nothing was started."""
    asked = {"workspace": str(tmp_path), "jobs": {"a": {"command": "true", "memory": "900GiB"}}}
    async with open_served() as served:
        answer = await served.http.post("/v1/runs", json=asked)

        told = await problem(answer, 422)
        assert "memory 900GiB of the job a is too much: the host local has 256 GiB" in told["title"]
        assert 'write at most `memory = "256GiB"`' == told["resolution"]
        assert [] == served.orchestrator.journal.jobs()
        assert not served.fake.instances()


async def test_a_service_lets_jobs_mount_what_its_operator_allows(tmp_path: Path) -> None:
    """The refusal names key and path, and says what to type; nothing is submitted."""
    (tmp_path / "allowed").mkdir()
    async with open_served(allow_mounts=(tmp_path / "allowed",)) as served:

        async def submit(source: Path) -> httpx.Response:
            job = {"command": "true", "mounts": [{"source": str(source), "path": "/mnt/data"}]}
            body = {"workspace": served.workspace, "jobs": {"a": job}}
            return await served.http.post("/v1/runs", json=body)

        refused = await submit(tmp_path)
        assert (422, []) == (refused.status_code, served.orchestrator.journal.jobs())
        problem = refused.json()
        assert (
            f"mounts[0].source {str(tmp_path)!r} is not a directory that jobs" in problem["title"]
        )
        assert f"pikaci serve --allow-mounts {tmp_path}" in problem["resolution"]
        assert 201 == (await submit(tmp_path / "allowed")).status_code


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


async def test_without_a_daemon_a_submission_is_to_be_sent_again() -> None:
    """And nothing of it is in the journal."""
    async with open_served() as served:
        served.fake.kill_daemon()
        answer = await served.http.post(
            "/v1/runs",
            json={"workspace": served.workspace, "jobs": {"a": {"command": "true"}}},
        )
        served.fake.restart_daemon()

        await problem(answer, 503)
        assert "5" == answer.headers["retry-after"]
        assert [] == served.orchestrator.journal.jobs()


async def test_a_full_queue_is_to_be_asked_again() -> None:
    """429, at once."""
    async with open_served(capacity=Capacity(jobs=1), queue_jobs=1) as served:
        running = await served.submit("sleep 10000")
        await served.started(running["id"])
        waiting = await served.submit()
        answer = await served.http.post(
            "/v1/runs",
            json={"workspace": served.workspace, "jobs": {"a": {"command": "true"}}},
        )
        document = (await served.http.get(f"/v1/jobs/{waiting['id']}")).json()
        await served.http.post(f"/v1/jobs/{running['id']}/cancel", json={"now": True})

    await problem(answer, 429)
    assert "a slot: 1 of 1 are taken" == document["waits_for"]


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


async def test_a_service_that_stops_takes_no_jobs() -> None:
    """Submissions and /readyz are told so; jobs can still be read."""
    async with open_served() as served:
        assert 200 == (await served.http.get("/readyz")).status_code
        stopping = trio.Event()
        stopping.set()
        app = make_app(served.orchestrator, stopping=stopping)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://pikaci"
        ) as late:
            body = {"workspace": served.workspace, "jobs": {"a": {"command": "true"}}}
            await problem(await late.post("/v1/runs", json=body), 503)
            await problem(await late.get("/readyz"), 503)
            assert 200 == (await late.get("/healthz")).status_code
            assert 200 == (await late.get("/v1/jobs")).status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Host": "LocalHost.:8080"}, 200),
        ({"Host": ""}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:8080"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_page_of_somebody_else_gets_nothing(headers: dict[str, str], status: int) -> None:
    """Whatever name it uses for a socket that was forwarded to a port."""
    async with open_served() as served:
        assert status == (await served.http.get("/v1/jobs", headers=headers)).status_code


async def test_on_tcp_nothing_is_told_without_the_token() -> None:
    """Except that the service is alive."""
    async with open_served() as served:
        app = RequireToken(make_app(served.orchestrator), "t" * 16)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://pikaci"
        ) as http:
            for given in ("", "Bearer wrong", "t" * 16):
                answer = await http.get("/v1/jobs", headers={"Authorization": given})
                await problem(answer, 401)
                assert "Bearer" == answer.headers["www-authenticate"]
            for scheme in ("Bearer", "bearer", "BEARER "):
                given = {"Authorization": f"{scheme} {'t' * 16}"}
                assert 200 == (await http.get("/v1/jobs", headers=given)).status_code
            assert 200 == (await http.get("/healthz")).status_code


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


def test_the_socket_is_its_user_s_alone(tmp_path: Path) -> None:
    """From the start; the socket of a dead service is replaced, another file is not."""
    path = tmp_path / ("long" * 20) / ("er" * 20) / "service.sock"
    path.parent.mkdir(parents=True)
    old = os.umask(0)
    try:
        with unix_socket(path) as first:
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)
            first.close()
            with unix_socket(path):
                assert path.is_socket()
    finally:
        os.umask(old)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(UsageError, match="is not a socket"), unix_socket(path):
        pass
    assert "mine" == path.read_text()


def test_the_socket_of_a_living_service_stays(tmp_path: Path) -> None:
    """Also if two state roots use the same path; each service removes only its own socket."""
    path = tmp_path / "service.sock"
    with unix_socket(path):
        with pytest.raises(UsageError, match="another service listens"), unix_socket(path):
            pass
        assert path.is_socket()
        path.unlink()
        path.write_text("somebody else's")
    assert "somebody else's" == path.read_text()


@pytest.mark.parametrize("path", ["no/such/directory", "file/sock", "x" * 300, "directory"])
def test_a_path_that_can_be_no_socket_is_said_so(path: str, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError, match="socket"), unix_socket(tmp_path / path):
        pass


async def test_a_stream_of_events_has_no_head() -> None:
    """It would last as long as the job."""
    async with open_served() as served:
        job = await served.submit("sleep 10000")
        refused = await served.http.head(f"/v1/jobs/{job['id']}/events")
        head = await served.http.head(f"/v1/jobs/{job['id']}/log", params={"follow": "true"})
        await served.orchestrator.cancel([job["id"]], now=True)

    assert (405, "GET") == (refused.status_code, refused.headers["allow"])
    assert 200 == head.status_code


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("a" * 16, 0o644, "can be read by others"),
        ("short", 0o600, "no token of at least 16"),
        ("with a space and more", 0o600, "no token of at least 16"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_a_token_is_secret_and_long(
    tmp_path: Path, text: str | None, mode: int, words: str
) -> None:
    """Or nothing listens."""
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(UsageError, match=words):
        read_token(path)


@pytest.mark.parametrize(("mode", "taken"), [(0o400, True), (0o440, True), (0o444, False)])
def test_a_token_may_be_a_credential_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, taken: bool
) -> None:
    """Its access list looks like group permissions; permissions for others are refused."""
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    if taken:
        assert "0123456789abcdef" == read_token(path)
    else:
        with pytest.raises(UsageError, match="read by others"):
            read_token(path)


def test_a_token_has_nothing_that_an_editor_adds(tmp_path: Path) -> None:
    """As with a secret's file."""
    path = tmp_path / "token"
    path.write_bytes(b"\xef\xbb\xbf0123456789abcdef\r\n")
    path.chmod(0o600)

    assert "0123456789abcdef" == read_token(path)


@pytest.mark.parametrize("listen", ["localhost:80", "127.0.0.1", "127.0.0.1:x", "1.2.3.4:1", ":1"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    """Also host names: only an address says where it listens."""
    with pytest.raises(UsageError, match="--listen"), tcp_socket(listen):
        pass
