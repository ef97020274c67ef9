"""The page's HTML, which no output of a job can change."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import msgspec
import pytest

from orchestrator import Capacity, JobSpec
from orchestrator.log_end import read_log_end
from orchestrator.report import job_document
from orchestrator.service.web import board
from orchestrator.service.web.job import drawing, settings, steps
from orchestrator.service.web.rendering import ago
from orchestrator.service.web.static_files import contents, version
from orchestrator.service.web.summaries import summary
from orchestrator.tracing.timeline import timeline
from states import events as ev
from states.job import fold
from states.outcome import Failure, FailureKind, Outcome
from tests.samples import BEGAN, leave_artifacts, sample_event, sample_life, sample_shell_job
from tests.service.served import Served, open_served

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'\x1b[31m\u202e"
HTML = {"Accept": "text/html"}
OURS = {"Origin": "http://pikaci", "Sec-Fetch-Site": "same-origin"}


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def check_harmless(text: str) -> None:
    """Only our scripts run in the page; nothing in it comes from elsewhere."""
    for tag, attributes in Tags(text).found:
        assert tag not in ("img", "iframe", "object", "embed", "base", "style"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if tag == "script":
            assert re.fullmatch(r"/static/[0-9a-f]+/[a-z]+\.js", attributes["src"] or "")
        for name in ("href", "src", "action"):
            assert re.match(r"[/#]", attributes.get(name) or "/"), attributes
    assert "\x1b" not in text
    assert "\u202e" not in text


async def evil_job(served: Served) -> str:
    """An ended job with hostile text everywhere."""
    spec = JobSpec(command=EVIL, description=EVIL.replace("\x1b", ""), env={"A": EVIL})
    failure = Failure(
        kind=FailureKind.INFRASTRUCTURE, phase="running", message=EVIL, resolution=EVIL
    )
    first, *rest = sample_life(*(type(event) for event in sample_life()[:5]))
    first = msgspec.structs.replace(first, spec=spec, workspace=EVIL)
    life = [first, *rest, sample_event(ev.Failed, 6, failure=failure)]
    life[2] = msgspec.structs.replace(
        life[2], instance=EVIL, image=ev.ImageRef(alias=EVIL, fingerprint=EVIL)
    )
    called = ev.Called(
        job="r.1",
        at=BEGAN,
        monotonic=1.0,
        argv=("incus", EVIL),
        duration_ms=1.0,
        exit_code=1,
        error=EVIL,
    )
    await served.orchestrator.journal.append(*life[:5], called, life[5])
    there = served.orchestrator.job("r.1").directory
    leave_artifacts(there, {EVIL.replace("/", "_"): b""})
    (there / "guest.log").write_text(EVIL * 3)
    return "r.1"


async def test_no_page_says_what_a_job_wants_it_to() -> None:
    """Board, run, job, their parts, lists and errors: all that comes from a job is text."""
    async with open_served() as served:
        job = await evil_job(served)
        paths = (
            "/",
            "/?verdict=infrastructure",
            "/runs/r",
            f"/jobs/{job}",
            "/parts/board?run=r",
            f"/parts/jobs/{job}",
            "/jobs/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
            "/?name=%22%3E%3Cscript%3E",
            "/?before=%3Cscript%3E",
        )
        for path in paths:
            answer = await served.http.get(path, headers=HTML)
            assert answer.headers["content-type"].startswith("text/html"), path
            check_harmless(answer.text)
            assert (
                "default-src 'none'; script-src 'self';"
                in answer.headers["content-security-policy"]
            )
            assert "nosniff" == answer.headers["x-content-type-options"]
            assert "no-store" == answer.headers["cache-control"]


async def test_what_a_queue_says_is_text() -> None:
    """What a queued job waits for names other jobs."""
    async with open_served(capacity=Capacity(jobs=1)) as served:
        running = await served.submit("sleep 10000")
        await served.started(running["id"])
        await served.submit()
        text = (await served.http.get("/")).text
        served.orchestrator.detach()

    check_harmless(text)
    assert "waits for a slot: 1 of 1 are taken" in text


async def test_runs_are_paged_newest_first() -> None:
    """However many there are; the last page has no link to a next one."""
    async with open_served() as served:
        lives = [
            msgspec.structs.replace(
                sample_event(ev.Rejected, 1, job=f"r{n}.1"), run=f"r{n}", name=f"job{n}"
            )
            for n in range(board.RUNS + 3)
        ]
        await served.orchestrator.journal.append(*lives)
        first = (await served.http.get("/")).text
        (earlier,) = re.findall(r'href="(/\?before=\d+)"', first)
        second = (await served.http.get(earlier)).text

    def runs(text: str) -> list[str]:
        return re.findall(r'data-run="(\w+)"', text)

    assert [f"r{n}" for n in range(board.RUNS + 2, 2, -1)] == runs(first)
    assert ["r2", "r1", "r0"] == runs(second)
    assert "before=" not in second


async def test_a_cancel_is_taken_from_our_own_pages_alone() -> None:
    """Not from another origin on the same host, nor without an origin."""
    async with open_served() as served:
        job = await served.submit("sleep 10000")
        await served.started(job["id"])
        path = f"/jobs/{job['id']}/cancel"
        refused = [
            await served.http.post(path, data={"now": "1"}, headers=headers)
            for headers in (
                {},
                {"Origin": "http://localhost:3000", "Host": "localhost:8080"},
                {"Origin": "http://pikaci", "Sec-Fetch-Site": "same-site"},
                {"Origin": "null"},
            )
        ]
        alive = served.orchestrator.job(job["id"]).ended
        done = await served.http.post(path, data={"now": "1"}, headers=OURS)
        ended = await served.orchestrator.job(job["id"]).wait()

    assert [403] * 4 == [answer.status_code for answer in refused]
    assert not alive
    assert (303, f"/jobs/{job['id']}") == (done.status_code, done.headers["location"])
    assert "cancelled" == ended.verdict


async def test_static_files_are_kept_by_their_version() -> None:
    """Forever; another version is not found."""
    async with open_served() as served:
        for name in contents():
            answer = await served.http.get(f"/static/{version()}/{name}")
            assert (200, "public, max-age=31536000, immutable") == (
                answer.status_code,
                answer.headers["cache-control"],
            )
        known = await served.http.get(
            f"/static/{version()}/style.css", headers={"If-None-Match": f'"{version()}"'}
        )
        old = await served.http.get("/static/0123456789abcdef/style.css")
        outside = await served.http.get(f"/static/{version()}/%2e%2e%2fpages.py")

    assert (304, 404, 404) == (known.status_code, old.status_code, outside.status_code)


async def test_programs_get_problems_and_people_get_pages() -> None:
    """Of the same error."""
    async with open_served() as served:
        program = await served.http.get("/jobs/none")
        person = await served.http.get("/jobs/none", headers=HTML)

    assert "application/problem+json" == program.headers["content-type"]
    assert (404, "text/html; charset=utf-8") == (person.status_code, person.headers["content-type"])
    assert "there is no job" in person.text


def test_a_run_of_many_shows_the_urgent_ones() -> None:
    """Jobs that did not pass come first; the counts cover all."""
    passed, failed = summary(job_document(fold(sample_life()))), sample_life()
    failed[-1] = sample_event(
        ev.ResultCollected, 6, outcome=Outcome.FAILED, exit_code=1, message="no"
    )
    run = board.run([passed] * 90 + [summary(job_document(fold(failed)))])

    assert "failed" == run.jobs[0].mark
    assert (board.MAX_SHOWN, 91) == (len(run.jobs), run.total)
    assert (("failed", 1), ("passed", 90)) == run.counts
    assert ("failed", "failed") == (run.mark, run.word)


def test_a_run_is_what_its_jobs_are() -> None:
    """Queued, running, running with a failure, ended."""
    queued, running = (summary(job_document(fold(sample_life()[:n]))) for n in (1, 5))
    rejected = summary(job_document(fold(sample_life(ev.Rejected))))

    assert "queued" == board.run([queued]).word
    assert "running" == board.run([queued, running]).word
    assert "running, 1 did not pass" == board.run([rejected, running]).word
    assert board.run([running]).secs is None
    assert 4.0 == board.run([summary(job_document(fold(sample_life())))]).secs


def test_steps_are_of_the_current_attempt() -> None:
    """Past, current and next states; after an early end there are no next ones."""
    retried = fold(
        sample_life(*(type(e) for e in sample_life()[:2]), ev.Retried, ev.ArtifactsReset)
    )
    failed = fold(sample_life(ev.Submitted, ev.ArtifactsReset, ev.Failed))

    assert ["queued", "creating", "starting"] == [step.name for step in steps(retried)][:3]
    assert ["done", "now", "next", "next", "next", "next"] == [step.kind for step in steps(retried)]
    assert ["done", "done", "end"] == [step.kind for step in steps(failed)]


def test_bars_stay_in_their_drawing() -> None:
    """Also bars without length, at the very end."""
    drawn = drawing(timeline(sample_life()))

    assert 6 == len(drawn.states)
    for bar in (*drawn.states, *drawn.parts):
        assert 0 <= bar.x <= bar.x + bar.width <= 1000
        assert bar.width > 0


def test_settings_are_what_was_asked_for() -> None:
    """Not the defaults."""
    assert {"memory": "1GiB", "retries": 3} == settings(sample_shell_job(memory="1GiB", retries=3))


@pytest.mark.parametrize(
    ("log", "text", "whole"),
    [
        (b"", "", True),
        (b"one\ntwo\n", "one\ntwo", True),
        (b"1 %\r50 %\r100 %\r\n\x1b[31mred\x1b[0m \xff\n", "100 %\nred \ufffd", True),
        (b"x" * 100_000, "x" * 2000, False),
        (b"".join(b"%d\n" % n for n in range(300)), "\n".join(map(str, range(100, 300))), False),
    ],
)
def test_the_end_of_a_log_is_plain_text(tmp_path, log: bytes, text: str, whole: bool) -> None:  # type: ignore[no-untyped-def]
    """Bounded in lines and in their length."""
    path = tmp_path / "guest.log"
    path.write_bytes(log)
    end = read_log_end(path)

    assert (text, len(log), whole) == (end.text, end.size, end.whole)


def test_ages_are_in_words() -> None:
    """As a person says them."""
    assert ["just now", "59 s ago", "2 h ago"] == [ago(secs) for secs in (-5, 59, 7200)]
