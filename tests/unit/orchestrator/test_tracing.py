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
    assert [("incus start", 0.14)] == [(call.name, round(call.secs, 3)) for call in job.calls]


@given(lives())
def test_every_life_can_be_drawn(events: list[ev.Event]) -> None:
    """Ended or not, retried or not, in every form; and it differs from itself in nothing."""
    job = timeline(events)

    for draw in (perfetto, html, mermaid, otlp):
        assert draw([job])
        assert draw([job, job])
    assert [] == difference(job, job)


def test_perfetto_has_a_track_a_job_and_a_slice_a_state() -> None:
    """In microseconds from the run's begin."""
    document = msgspec.json.decode(perfetto([life(), life(job="r.2", name=HOSTILE)]))
    slices = [event for event in document["traceEvents"] if event["ph"] == "X"]
    names = [event["args"]["name"] for event in document["traceEvents"] if event["ph"] == "M"]

    assert ["run r", "r.1 lint", "r.1 incus", f"r.2 {HOSTILE}", "r.2 incus"] == names
    assert 2 * 7 == len(slices)
    assert (0, 1_000_000) == (slices[0]["ts"], slices[0]["dur"])
    assert 4 == len({event["tid"] for event in slices})


def test_otlp_is_one_trace_a_run_with_every_parent_in_it() -> None:
    """Twice the same bytes; times are whole nanoseconds, as text."""
    jobs = [life(), life(job="r.2", name="other")]
    (resource,) = msgspec.json.decode(otlp(jobs))["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    spans = {span["spanId"]: span for span in scope["spans"]}
    roots = [span for span in spans.values() if not span["parentSpanId"]]

    assert otlp(jobs) == otlp(jobs)
    assert 1 + 2 + 2 * 7 == len(spans) == len(scope["spans"])
    assert ["run r"] == [span["name"] for span in roots]
    assert 1 == len({span["traceId"] for span in spans.values()})
    assert all(span["parentSpanId"] in spans for span in spans.values() if span not in roots)
    assert all(
        int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]) for span in spans.values()
    )


class Tags(HTMLParser):
    """The tags of a page, those that are open, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.titles: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value or "" for name, value in attrs if name == "title"]
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
    page = html([life(), timeline([first, failed])]).decode()
    tags = Tags(page)

    assert [] == tags.open
    assert "script" not in tags.tags
    assert "//" not in page
    assert 4 == tags.text.count("<script>alert('x')</script>")
    assert any(HOSTILE in title for title in tags.titles)


def test_mermaid_has_no_words_that_mean_something_to_it() -> None:
    """A job's way, or a run's bars."""
    one = mermaid([life(name=HOSTILE)]).decode()
    run = mermaid([life(name=HOSTILE), life(job="r.2")]).decode()

    assert "    submitted --> artifacts_reset : 1.000 s\n" in one
    assert run.startswith("gantt\n")
    assert not set("<>\"'&;") & set(run)
    assert 12 == run.count("ms\n")


def test_a_difference_is_said_in_words() -> None:
    """Another path, another outcome, a state that took longer."""
    passed = life()
    cancelled = life(*PATH[:5], ev.CancelRequested, ev.Cancelled)
    slow = sample_life()
    slow[1:] = [
        msgspec.structs.replace(event, at=event.at.replace(second=event.at.second + 3))
        for event in slow[1:]
    ]

    assert [
        "outcome: passed, then cancelled",
        "path, after running: result_collected; then cancelling -> cancelled",
        "cancelling: 0.000 s, then 1.000 s (1.000 s longer)",
    ] == difference(passed, cancelled)
    assert ["submitted: 1.000 s, then 4.000 s (3.000 s longer)"] == difference(
        timeline(sample_life()), timeline(slow)
    )


@given(st.integers(0, 6), st.integers(0, 6))
def test_a_clock_that_is_set_back_makes_no_negative_time(at: int, back: int) -> None:
    """What is shown never runs backwards."""
    events = sample_life()
    for number in range(min(at, len(events)), len(events)):
        moment = events[number].at.replace(second=max(0, events[number].at.second - back))
        events[number] = msgspec.structs.replace(events[number], at=moment)

    assert all(span.secs >= 0 for span in timeline(events).states)
