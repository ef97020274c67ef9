"""The page's HTML, which no output of a job can change."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator import Capacity, JobSpec, Request
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.log_end import read_log_end
from orchestrator.service.web import board
from orchestrator.service.web.job import drawing, settings, steps
from orchestrator.service.web.progress import progress
from orchestrator.service.web.rendering import ago
from orchestrator.service.web.static_files import contents, version
from orchestrator.tracing.timeline import timeline
from states import events as ev
from states.job import fold
from states.outcome import Failure, FailureKind, Outcome
from tests.samples import BEGAN, leave_artifacts, sample_event, sample_life, sample_shell_job
from tests.service.served import Served, open_served
from tests.web.rows import summary_of

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
        # A template escapes what it writes, also the quotes of an attribute.
        assert '"' not in f"{attributes.get('class')}{attributes.get('aria-current')}", attributes
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
        v=2,
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
    passed, failed = summary_of(sample_life()), sample_life()
    failed[-1] = sample_event(
        ev.ResultCollected, 6, outcome=Outcome.FAILED, exit_code=1, message="no"
    )
    bad = [summary_of(failed, id=f"r.{number}") for number in range(5)]
    run = board.run([passed] * 90 + bad)

    assert [one.id for one in bad[: board.MAX_TOLD]] == [job.id for job in run.told]
    assert ["failed"] * 2 + ["passed"] * 4 == [job.mark for job in run.jobs]
    assert (board.MAX_CHIPS, 95, 5) == (len(run.jobs), run.total, run.bad)
    assert "90 passed, 5 failed" == run.progress.words
    assert ("failed", "failed") == (run.mark, run.word)


def test_a_run_is_what_its_jobs_are() -> None:
    """Queued, running, running with a failure, ended."""
    queued, running = (summary_of(sample_life()[:n]) for n in (1, 5))
    rejected = summary_of(sample_life(ev.Rejected))

    assert "queued" == board.run([queued]).word
    assert "running" == board.run([queued, running]).word
    assert "running, 1 did not pass" == board.run([rejected, running]).word
    assert board.run([running]).secs is None
    assert 4.0 == board.run([summary_of(sample_life())]).secs


def test_a_bar_shows_how_far_a_run_is() -> None:
    """Within its drawing, what failed first; a part of few jobs can be seen."""
    marks = {"queued": 146, "running": 4, "passed": 1146, "failed": 1, "infrastructure": 1}
    found = progress(marks)

    assert "1146 passed, 1 failed, 1 infrastructure fault, 150 to go" == found.words
    assert ["failed", "infrastructure", "passed", "running", "queued"] == [
        part.mark for part in found.parts
    ]
    ends = [(part.x, round(part.x + part.width, 1)) for part in found.parts]
    assert (0, 1000) == (ends[0][0], ends[-1][1])
    assert all(abs(end - begin) < 0.1 for (_, end), (begin, _) in pairwise(ends))
    assert min(part.width for part in found.parts) >= 8


def test_the_jobs_of_a_run_are_in_groups() -> None:
    """What needs attention first; of many, what passed and what is queued is in one line each."""
    passed, queued = summary_of(sample_life()), summary_of(sample_life()[:1])
    running = summary_of(sample_life()[:5])
    rejected = summary_of(sample_life(ev.Rejected))
    few = board.groups([passed, queued, running, rejected])
    many = board.groups([passed] * 150 + [queued] * 150 + [rejected])

    assert ["did not pass", "running", "queued", "passed"] == [group.name for group in few]
    assert all(group.open for group in few)
    wanted = [
        ("did not pass", 1, 1, True),
        ("queued", 150, 100, False),
        ("passed", 150, 100, False),
    ]
    assert wanted == [(one.name, one.total, len(one.jobs), one.open) for one in many]


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


async def test_what_is_run_again_is_a_new_run_on_the_same_snapshot() -> None:
    """A job, the failed ones of a run, or all; a form that is sent twice submits once."""
    codes = {"good": 0, "bad": 3, "worse": 4}

    async def script(command: GuestCommand) -> GuestOutcome:
        return GuestOutcome(exit_code=codes[command.text])

    async with open_served(guest_script=script) as served:
        specs = {name: JobSpec(command=name) for name in codes}
        run = await served.orchestrator.submit_run(Request(Path(served.workspace), specs))
        old = await run.wait()
        (Path(served.workspace) / "later").write_text("not in the snapshot")
        page = (await served.http.get(f"/runs/{run.id}", headers=HTML)).text
        forms = re.findall(r'action="(/runs/[^"]+)"', page)

        async def sent(path: str, **form: str) -> str:
            done = await served.http.post(path, data={"newest": "1", **form}, headers=OURS)
            assert 303 == done.status_code, done.text
            return done.headers["location"].removeprefix("/runs/")

        failed = await sent(f"/runs/{run.id}/rerun", failed="1")
        again = await sent(f"/runs/{run.id}/rerun", failed="1")
        one = await sent(f"/jobs/{old[0].id}/rerun")
        every = await sent("/runs/1/rerun")
        runs = {}
        for name in (failed, one, every):
            runs[name] = await (await served.orchestrator.find_run(name)).wait()

    assert [f"/runs/{run.id}/rerun"] * 2 == forms
    assert failed == again
    assert ["bad", "worse"] == [job.name for job in runs[failed]]
    assert ["good"] == [job.name for job in runs[one]]
    assert list(codes) == [job.name for job in runs[every]]
    assert {old[0].snapshot} == {job.snapshot for jobs in runs.values() for job in jobs}


async def test_a_run_is_cancelled() -> None:
    """All its jobs that have not ended."""
    async with open_served() as served:
        specs = {"quick": JobSpec(command="true"), "slow": JobSpec(command="sleep 10000")}
        run = await served.orchestrator.submit_run(Request(Path(served.workspace), specs))
        await run.jobs[0].wait()
        page = (await served.http.get(f"/runs/{run.id}", headers=HTML)).text
        done = await served.http.post(f"/runs/{run.id}/cancel", data={"now": "1"}, headers=OURS)
        ended = await run.wait()

    assert f'action="/runs/{run.id}/cancel"' in page
    assert "/rerun" not in page
    assert (303, f"/runs/{run.id}") == (done.status_code, done.headers["location"])
    assert ["passed", "cancelled"] == [job.verdict for job in ended]


async def test_a_form_that_changes_something_is_taken_from_our_own_pages_alone() -> None:
    """Every one of them; what it names need not exist."""
    async with open_served() as served:
        job = await served.submit("true")
        await served.orchestrator.job(job["id"]).wait()
        for path in (f"/jobs/{job['id']}", f"/runs/{job['run']}", "/jobs/none", "/runs/none"):
            for verb in ("cancel", "rerun"):
                for headers in ({}, {"Origin": "http://pikaci", "Sec-Fetch-Site": "cross-site"}):
                    answer = await served.http.post(
                        f"{path}/{verb}", data={"newest": "1"}, headers=headers
                    )
                    assert 403 == answer.status_code, (path, verb)
        hostile = [
            await served.http.post(f"/jobs/{job['id']}/rerun", data=data, headers=OURS)
            for data in (
                {},
                {"newest": "x"},
                {"newest": "9" * 40},
                {"newest": "\N{SUPERSCRIPT TWO}"},
            )
        ]
        missing = await served.http.post("/runs/none/rerun", data={"newest": "1"}, headers=OURS)
        nothing = await served.http.post(
            f"/runs/{job['run']}/rerun", data={"newest": "1", "failed": "1"}, headers=OURS
        )
        jobs = served.orchestrator.journal.jobs()

    assert [400] * 4 == [answer.status_code for answer in hostile]
    assert (404, 400) == (missing.status_code, nothing.status_code)
    assert "nothing to rerun" in nothing.text
    assert 1 == len(jobs)


async def test_a_service_that_stops_runs_nothing_again() -> None:
    """As the API."""
    async with open_served() as served:
        job = await served.submit("true")
        await served.orchestrator.job(job["id"]).wait()
        served.stopping.set()
        answer = await served.http.post(
            f"/jobs/{job['id']}/rerun", data={"newest": "1"}, headers=OURS
        )

    assert 503 == answer.status_code
    assert "the service is stopping" in answer.text


async def test_a_run_has_a_number_that_a_person_can_say() -> None:
    """On its pages, in its document, and in the place of its id."""
    async with open_served() as served:
        for _ in range(2):
            job = await served.submit("true")
            await served.orchestrator.job(job["id"]).wait()
        board_text = (await served.http.get("/", headers=HTML)).text
        by_number = await served.http.get("/runs/2", headers=HTML)
        documents = [
            (await served.http.get(f"/v1/runs/{name}")).json() for name in ("2", job["run"])
        ]
        jobs = (await served.http.get("/v1/jobs?run=2")).json()["jobs"]
        missing = await served.http.get("/runs/3")

    assert f'<a href="/runs/{job["run"]}" title="run {job["run"]}">#2</a>' in board_text
    assert "<title>passed · run #2 · pikaci</title>" in by_number.text
    assert [2, 2] == [document["number"] for document in documents]
    assert [job["id"]] == [one["id"] for one in jobs]
    assert 404 == missing.status_code


async def test_a_board_of_many_jobs_asks_the_journal_no_more_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does a run's page; both stay small."""
    asked: dict[int, list[int]] = {}
    sizes: dict[int, list[int]] = {}
    for count in (10, 400):
        async with open_served() as served:
            life = sample_life()
            lives = [
                msgspec.structs.replace(event, job=f"r.{number}")
                for number in range(count)
                for event in life
            ]
            await served.orchestrator.journal.append(*lives)
            journal, calls = served.orchestrator.journal, [0]
            select = journal._select

            def counted(*args: Any, calls: list[int] = calls, select: Any = select) -> Any:
                calls[0] += 1
                return select(*args)

            monkeypatch.setattr(journal, "_select", counted)
            answers = []
            asked[count] = []
            for path in ("/", "/runs/r"):
                least = []
                for _ in range(3):  # the service's own upkeep asks beside one of them
                    calls[0] = 0
                    answer = await served.http.get(path, headers=HTML)
                    least.append(calls[0])
                answers.append(answer)
                asked[count].append(min(least))
            sizes[count] = [len(answer.content) for answer in answers]

    assert asked[10] == asked[400]
    assert sizes[400][0] < sizes[10][0] + 1000
    assert sizes[400][1] < 100_000


async def test_an_attribute_is_one() -> None:
    """And no text with quotes in it, which is what escaping makes of one in an expression."""
    async with open_served() as served:
        await served.orchestrator.journal.append(*sample_life())
        for path in ("/jobs/r.1", "/jobs/r.1/tests", "/runs/r", "/", "/?verdict=passed"):
            page = (await served.http.get(path, headers=HTML)).text
            assert "=&#34;" not in page
            assert "=&quot;" not in page
        job = (await served.http.get("/jobs/r.1", headers=HTML)).text

    assert ' aria-current="step"' in job
