"""Submissions: what a service takes once, what it refuses, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from orchestrator import Capacity
from orchestrator.service.app import make_app
from tests.service.answers import problem
from tests.service.served import open_served


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
