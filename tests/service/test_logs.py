"""The service's log: one line per decision, readable by programs."""

from __future__ import annotations

import errno
import io
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import TextIO

import pytest
import trio
from trio.testing import MockClock

from orchestrator.service import logs
from orchestrator.service.logs import _Lines, goes_to_journal, logging_to
from orchestrator.service.metrics import Metrics
from orchestrator.service.token import RequireToken
from orchestrator.session.upkeep import EVERY_SECS
from orchestrator.testing import open_fake
from tests.service.served import open_served
from tests.service.test_metrics import figures

TOKEN = "a-token-of-some-length"
SECS = 60


@pytest.fixture
def out() -> Iterator[Log]:
    """Where the log of a test goes, as JSON."""
    log = Log()
    with logging_to(log.write, as_json=True):
        yield log


class Log:
    """What was written to a log."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, line: bytes) -> None:
        self.text += line.decode()


def lines(out: Log) -> list[dict[str, object]]:
    """All lines that were logged, which a thread writes a moment later."""
    handlers = logging.getLogger("orchestrator").handlers
    next(one for one in handlers if isinstance(one, _Lines)).end()
    return [json.loads(line) for line in out.text.splitlines()]


async def test_what_is_asked_for_and_refused_is_in_the_log(out: Log) -> None:
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
    assert TOKEN not in out.text
    assert "guessed" not in out.text


async def test_a_bug_is_told_with_its_traceback(out: Log, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_no_field_takes_the_place_of_the_line_s_own() -> None:
    """Programs look for a message, a level and a time."""
    record = logging.LogRecord("a", logging.INFO, "p", 1, "job", (), None)
    record.about = {"message": "forged", "level": "error", "job": "r.1"}
    line = json.loads(logs.JsonLines().format(record))

    assert ("job", "info", "r.1") == (line["message"], line["level"], line["job"])


def test_text_is_one_line_whatever_is_in_it() -> None:
    """So that nobody can forge lines."""
    record = logging.LogRecord("a", logging.INFO, "p", 1, "said %s", ("a\nb\x1b[2J",), None)
    record.about = {"reason": "c\nd\x1b[2J", "jobs": 3}
    line = logs.TextLines().format(record)

    assert 'reason="c\\nd\\u001b[2J" jobs=3' in line
    assert [line] == line.splitlines()
    assert "\x1b" not in line


def test_a_flood_is_counted_and_not_written(out: Log, monkeypatch: pytest.MonkeyPatch) -> None:
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
    broken = []

    def full(line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with logging_to(full, as_json=False, on_broken=lambda: broken.append(1)):
        logging.getLogger("orchestrator.test").warning("refused")

    assert [1] == broken


def test_a_log_that_nobody_reads_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the end. What is lost then is counted in the next line."""
    monkeypatch.setattr(logs, "MOST_WAITING", 10)
    monkeypatch.setattr(logs, "LAST_LINES_SECS", 0.05)
    reads, first, log = Event(), Log(), Log()
    numbers = itertools.count()

    def write(line: bytes, into: Log) -> None:
        assert reads.wait(SECS)
        into.write(line)

    def tell() -> None:
        about = {"about": {"job": "r.1", "number": next(numbers)}}
        logging.getLogger("orchestrator.test").warning("refused", extra=about)

    with logging_to(partial(write, into=first), as_json=True):
        for _ in range(30):
            tell()
    assert "" == first.text
    numbers = itertools.count()
    with logging_to(partial(write, into=log), as_json=True):
        for _ in range(30):
            tell()
        reads.set()
        give_up = time.monotonic() + SECS
        while "lost_before" not in log.text:
            assert time.monotonic() < give_up
            tell()
            time.sleep(0.01)
    written = [json.loads(line) for line in log.text.splitlines()]
    place = next(place for place, line in enumerate(written) if "lost_before" in line)

    assert written[place]["lost_before"] == written[place]["number"] - place > 10


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """A stream that the environment says is systemd's journal."""
    with (tmp_path / "journal").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        yield stream


def test_the_journal_is_known(
    journal: TextIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stream itself: a shell that systemd started has the variable of another."""
    with (tmp_path / "other").open("w") as other:
        assert not goes_to_journal(other)
    assert not goes_to_journal(io.StringIO())
    assert goes_to_journal(journal)
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not goes_to_journal(journal)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_journal_gets_priorities(as_json: bool) -> None:
    """`journalctl -p warning` shows what somebody should look at."""
    ours = logging.getLogger("orchestrator.test")
    log = Log()
    with logging_to(log.write, as_json=as_json, to_journal=True):
        ours.info("well")
        ours.warning("odd")
        ours.error("wrong")
    found = log.text.splitlines()

    assert ["<6>", "<4>", "<3>"] == [line[:3] for line in found]
    assert not as_json or ["well", "odd", "wrong"] == [
        json.loads(line[3:])["message"] for line in found
    ]


async def test_what_upkeep_could_not_do_is_told_and_counted(
    out: Log, autojump_clock: MockClock
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
