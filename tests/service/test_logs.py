"""The service's log: one line per decision, readable by programs."""

from __future__ import annotations

import errno
import io
import json
import logging
from collections.abc import Iterator
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from orchestrator.service import logs
from orchestrator.service.logs import configure_logging, under_systemd
from orchestrator.service.metrics import Metrics
from orchestrator.service.token import RequireToken
from orchestrator.session.upkeep import EVERY_SECS
from orchestrator.testing import open_fake
from tests.service.served import open_served
from tests.service.test_metrics import figures

TOKEN = "a-token-of-some-length"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where the log of a test goes, as JSON."""
    package = logging.getLogger("orchestrator")
    before = package.handlers, package.level, package.propagate
    found = io.StringIO()
    configure_logging(found, as_json=True)
    yield found
    package.handlers, package.level, package.propagate = before


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def test_what_is_asked_for_and_refused_is_in_the_log(out: io.StringIO) -> None:
    """One line each, with its fields; never the token or a body."""
    async with open_served(wrap=partial(RequireToken, token=TOKEN)) as served:
        known = {"Authorization": f"Bearer {TOKEN}"}
        stranger = await served.http.get("/v1/jobs", headers={"Authorization": "Bearer guessed"})
        body = {"workspace": served.workspace, "jobs": {"a": {"command": "sleep 10000"}}}
        run = (await served.http.post("/v1/runs", json=body, headers=known)).json()
        await served.http.post("/v1/runs", json={**body, "jobs": {}}, headers=known)
        path = f"/v1/runs/{run['id']}/cancel"
        await served.http.post(path, json={"now": True, "reason": "a\nb"}, headers=known)
    found = lines(out)

    assert 401 == stranger.status_code
    assert ["refused", "submitted run", "refused", "cancel"] == [
        line["message"] for line in found if line["logger"] != "orchestrator.session.upkeep"
    ]
    refused, submitted, bad, cancel = found[-4:]
    assert (401, "/v1/jobs", "info") == (refused["status"], refused["path"], refused["level"])
    assert (run["id"], 1) == (submitted["run"], submitted["jobs"])
    assert 422 == bad["status"]
    assert (run["jobs"][0]["id"], "a\nb", True) == (cancel["job"], cancel["reason"], cancel["now"])
    assert TOKEN not in out.getvalue()
    assert "guessed" not in out.getvalue()


async def test_a_bug_is_told_with_its_traceback(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's error is not logged."""
    async with open_served() as served:
        monkeypatch.setattr(type(served.orchestrator), "statistics", lambda self: 1 / 0)
        assert 500 == (await served.http.get("/v1/statistics")).status_code
        async with await trio.open_unix_socket(str(served.socket)) as client:
            await client.send_all(b"\x16\x03\x01")
            await client.receive_some()
    bug, refused = (line for line in lines(out) if "service" in str(line["logger"]))

    assert "error" == bug["level"]
    assert "ZeroDivisionError" in str(bug["traceback"])
    assert "info" == refused["level"]
    assert "traceback" not in refused


def test_text_is_one_line_whatever_is_in_it() -> None:
    """So that nobody can forge lines."""
    record = logging.LogRecord("a", logging.INFO, "p", 1, "said %s", ("a\nb\x1b[2J",), None)
    record.about = {"reason": "c\nd\x1b[2J", "jobs": 3}
    line = logs.TextLines().format(record)

    assert 'reason="c\\nd\\u001b[2J" jobs=3' in line
    assert [line] == line.splitlines()
    assert "\x1b" not in line


def test_a_flood_is_counted_and_not_written(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next minute says how many lines were left out."""
    now = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    log = logging.getLogger("orchestrator.test")

    def tell() -> None:
        log.warning("refused")

    for _ in range(1000):
        tell()
    now = 61.0
    tell()
    found = lines(out)

    assert logs.MOST_A_MINUTE + 1 == len(found)
    assert 1000 - logs.MOST_A_MINUTE == found[-1]["left_out_before"]


def test_a_log_that_nobody_takes_ends_nothing() -> None:
    """Nor is there a traceback."""
    package = logging.getLogger("orchestrator")
    before = package.handlers, package.level, package.propagate
    broken = []
    try:
        configure_logging(Full(), as_json=False, on_broken=lambda: broken.append(1))
        logging.getLogger("orchestrator.test").warning("refused")
    finally:
        package.handlers, package.level, package.propagate = before

    assert [1] == broken


@pytest.mark.parametrize("stream", ["9:1234", None])
def test_json_is_what_systemd_gets(stream: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says in the environment that it is there."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream is not None:
        monkeypatch.setenv("JOURNAL_STREAM", stream)

    assert (stream is not None) == under_systemd()


async def test_what_upkeep_could_not_do_is_told_and_counted(
    out: io.StringIO, autojump_clock: MockClock
) -> None:
    """It is retried; nothing is swallowed."""
    async with open_fake() as (orchestrator, fake):
        metrics = Metrics(orchestrator)
        fake.kill_daemon()
        await trio.sleep(3 * EVERY_SECS)
        fake.restart_daemon()
        counts = await figures(metrics, "pikaci_upkeep_faults_total")

    assert counts["reap",] >= 1
    assert 0 == counts["recover",]
    told = [line for line in lines(out) if line.get("duty") == "reap"]
    assert counts["reap",] == len(told)
    assert {"warning"} == {line["level"] for line in told}
