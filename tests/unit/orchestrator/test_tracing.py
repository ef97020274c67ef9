"""Traces as pictures and documents."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tracing.difference import difference
from orchestrator.tracing.html import html
from orchestrator.tracing.mermaid import mermaid
from orchestrator.tracing.otlp import otlp
from orchestrator.tracing.perfetto import perfetto
from orchestrator.tracing.timeline import Timeline, timeline
from states import events as ev
from tests.samples import PATH, lives, sample_event, sample_life, sample_note

HOSTILE = "</title><script>alert('x')</script>\"&:"


def life(*kinds: type[ev.Event], name: str = "lint", run: str = "r", job: str = "r.1") -> Timeline:
    """The timeline of a life, with one incus call in it."""
    events = [msgspec.structs.replace(event, job=job) for event in sample_life(*kinds)]
    events[0] = msgspec.structs.replace(events[0], name=name, run=run)
    call = msgspec.structs.replace(sample_note(), at=events[-1].at, job=job)
    return timeline([*events, call])


def test_states_follow_each_other_and_calls_have_their_time() -> None:
    """One second in each state; a call ends when it was noted."""
    job = life()

    assert [kind.__struct_config__.tag for kind in PATH] == [span.name for span in job.states]
    assert all(one.end == other.begin for one, other in pairwise(job.states))
    assert [1.0] * 5 + [0.0] == [span.secs for span in job.states]
    assert [("start", "incus start", 0.14)] == [
        (call.name, call.command, round(call.secs, 3)) for call in job.calls
    ]


@given(lives())
def test_every_life_can_be_drawn(events: list[ev.Event]) -> None:
    """Ended or not, retried or not, in every form; and it differs from itself in nothing."""
    job = timeline(events)

    for draw in (perfetto, html, mermaid, otlp):
        assert draw([job])
        assert draw([job, job])
    assert not difference(job, job).notable


def test_perfetto_has_tracks_for_each_job_whose_slices_nest() -> None:
    """States with what filled them on one, incus calls below it; in microseconds."""
    both = (timeline([*overlapping()]), life(job="r.2", name=HOSTILE))
    document = msgspec.json.decode(perfetto(both))
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    names = [
        event["args"]["name"]
        for event in document["traceEvents"]
        if event["name"] in ("process_name", "thread_name")
    ]
    tracks: dict[int, list[tuple[int, int]]] = {}
    for event in slices:
        tracks.setdefault(event["tid"], []).append((event["ts"], event["ts"] + event["dur"]))

    assert [
        "run r", "r.1 lint", "r.1 lint incus", "r.1 lint incus", f"r.2 {HOSTILE}",
        f"r.2 {HOSTILE} incus",
    ] == names  # fmt: skip
    assert (0, 1_000_000) == (slices[0]["ts"], slices[0]["dur"])
    assert 5 == len(tracks)
    for spans in tracks.values():
        for begin, end in spans:
            assert not any(begin < other < end < last for other, last in spans)


def overlapping() -> list[ev.Entry]:
    """A life in which one call began before another had ended."""
    events = sample_life()
    calls = [
        ev.Called(
            v=2,
            job="r.1",
            effect=verb,
            argv=("incus", verb),
            duration_ms=1500.0,
            exit_code=0,
            at=events[number].at,
            monotonic=0.0,
        )
        for verb, number in (("create", 3), ("start", 4))
    ]
    return [*events[:4], calls[0], events[4], calls[1], events[5]]


def test_otlp_is_one_trace_a_run_with_every_span_within_its_parent() -> None:
    """Twice the same bytes; times are whole nanoseconds, as text."""
    jobs = [timeline(overlapping()), life(job="r.2", name="other")]
    (resource,) = msgspec.json.decode(otlp(jobs))["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    spans = {span["spanId"]: span for span in scope["spans"]}
    roots = [span for span in spans.values() if not span["parentSpanId"]]

    assert otlp(jobs) == otlp(jobs)
    assert len(scope["spans"]) == len(spans)
    assert ["run r"] == [span["name"] for span in roots]
    assert 1 == len({span["traceId"] for span in spans.values()})
    for span in spans.values():
        begin, end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        parent = spans.get(span["parentSpanId"], span)
        assert int(parent["startTimeUnixNano"]) <= begin <= end <= int(parent["endTimeUnixNano"])


class Tags(HTMLParser):
    """The tags of a page, those that are open, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.hints: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.hints += [value or "" for name, value in attrs if name == "data-t"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_says_hostile_words_as_text() -> None:
    """No script, no address, nothing that a job's name could open."""
    failed = sample_event(ev.Failed, 2)
    failed = msgspec.structs.replace(
        failed, failure=msgspec.structs.replace(failed.failure, message=HOSTILE)
    )
    first = msgspec.structs.replace(sample_event(ev.Submitted, 1), name=HOSTILE, run=HOSTILE)
    call = msgspec.structs.replace(
        sample_note(), at=failed.at, argv=("incus", HOSTILE), effect=HOSTILE
    )
    page = html([life(), timeline([first, call, failed])]).decode()
    tags = Tags(page)

    assert [] == tags.open
    assert "script" not in tags.tags
    assert "//" not in page
    assert 4 == tags.text.count("<script>alert('x')</script>")
    assert any(HOSTILE in hint for hint in tags.hints)


def test_a_page_of_many_jobs_has_a_line_for_each_and_stays_small() -> None:
    """Its jobs' own times are beside the run's, as they could not be seen there."""
    page = html([life(job=f"r.{number}", name=f"job-{number}") for number in range(1000)])
    tags = Tags(page.decode())

    assert [] == tags.open
    assert 1000 == tags.tags.count("section")
    assert len(page) < 1 << 20


def test_mermaid_has_no_words_that_mean_something_to_it() -> None:
    """A job's way, or a run's bars."""
    one = mermaid([life(name=HOSTILE)]).decode()
    run = mermaid([life(name=HOSTILE), life(job="r.2")]).decode()

    assert "    submitted --> artifacts_reset : 1.0 s\n" in one
    assert run.startswith("gantt\n")
    assert not set("<>\"'&;") & set(run)
    assert 12 == run.count("ms\n")
    assert 2 == run.count(":milestone, ")


def test_a_way_that_was_gone_twice_is_one_arrow_with_both_times() -> None:
    """As it is when an attempt is tried again."""
    job = life(*PATH[:2], ev.Retried, *PATH[1:])

    assert 1 == mermaid([job]).count(b"submitted --> artifacts_reset : 1.0 s, 1.0 s\n")


def test_a_difference_has_path_outcome_and_times() -> None:
    """Another path, another outcome, a state that took longer, and what of it."""
    passed = life()
    cancelled = life(*PATH[:5], ev.CancelRequested, ev.Cancelled)
    slow = sample_life()
    slow[1:] = [
        msgspec.structs.replace(event, at=event.at.replace(second=event.at.second + 3))
        for event in slow[1:]
    ]
    ends = difference(passed, cancelled)
    times = difference(timeline(sample_life()), timeline(slow))

    assert (False, False, 5) == (ends.same_outcome, ends.same_path, ends.common)
    assert ["cancelling"] == [row.state for row in ends.rows if row.notable and not row.effect]
    assert (True, True, True) == (times.same_outcome, times.same_path, times.notable)
    assert [("submitted", "", 1.0, 4.0), ("submitted", "host", 1.0, 4.0)] == [
        (row.state, row.effect, row.one, row.other) for row in times.rows if row.notable
    ]


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_clock_that_is_set_back_makes_no_negative_time(at: int, back: int) -> None:
    """What is shown never runs backwards."""
    events = sample_life()
    for number in range(min(at, len(events)), len(events)):
        moment = events[number].at.replace(second=max(0, events[number].at.second - back))
        events[number] = msgspec.structs.replace(events[number], at=moment)

    assert all(span.secs >= 0 for span in timeline(events).states)
