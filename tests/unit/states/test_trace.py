"""Traces: written, read and replayed; damage is named by its line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from states import events as ev
from states import trace
from states.errors import TraceError
from states.job import fold
from tests.samples import PATH, sample_event, sample_life, sample_note


def test_a_replayed_trace_is_the_job() -> None:
    """Notes between the events move nothing."""
    life = sample_life()
    entries = [entry for event in life for entry in (event, sample_note())]

    assert fold(life) == trace.replay(trace.encode("r.1", entries))
    assert entries == trace.decode(trace.encode("r.1", entries))


ONE, TWO, THREE, FOUR, FIVE, SIX = sample_life()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([ONE, TWO, FOUR], "line 4: event 4 .instance_ready. comes where event 3 is due: event 3 is"),
        ([ONE, FIVE], "line 3: event 5 .* event 2 is due: events 2 to 4 are missing"),
        ([TWO, THREE], "line 2: event 2 .* event 1 is due: event 1 is missing"),
        ([ONE, THREE, TWO, FOUR], "line 3: .* event 2 is out of order: it comes later"),
        ([ONE, FOUR, TWO, THREE], "line 3: .* events 2 to 3 are out of order: they come"),
        ([ONE, TWO, TWO], "line 4: event 2 .artifacts_reset. is repeated where event 3 is due"),
        ([ONE, TWO, ONE], "line 4: event 1 .submitted. is repeated where event 3 is due"),
        ([ONE, sample_event(ev.ArtifactsReset, 2, job="x")], "line 3 belongs to job x, but"),
        ([ONE, sample_note(job="x")], "line 3 belongs to job x, but the trace to r.1"),
        (
            [ONE, sample_event(ev.Running, 2)],
            "line 3: the next recorded event is running; by today's table a job that is submitted"
            " cannot take",
        ),
        (
            [ONE, TWO, sample_event(ev.Failed, 3)],
            "line 4: failed was recorded in the state submitted; by today's table the job is"
            " artifacts_reset at that point",
        ),
        ([sample_note()], "no event of its job"),
    ],
    ids=[
        "gap", "wide gap", "no beginning", "reordered", "more reordered", "repeated", "begun anew",
        "foreign", "foreign note", "illegal", "another state", "no event",
    ],
)  # fmt: skip
def test_a_wrong_trace_is_named_by_its_line(entries: list[ev.Entry], words: str) -> None:
    """A gap, a repeated, a foreign or an illegal event: in words, with what was due."""
    with pytest.raises(TraceError, match=words):
        trace.replay(trace.encode("r.1", entries))


def test_what_would_be_legal_is_said() -> None:
    """So that who changed the table sees what it has in that place."""
    with pytest.raises(TraceError) as told:
        trace.replay(trace.encode("r.1", [ONE, sample_event(ev.Running, 2)]))

    legal = "reused or skipped or artifacts_reset or cancel_requested or failed"
    assert f"it takes {legal}" == told.value.resolution


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (lambda data: data[:-20], "line 7 breaks off: the trace was cut short there"),
        (lambda data: data[: data[:-1].rindex(b"\n") + 1], "promises 6 lines, but 5 follow"),
        (lambda data: data + data.splitlines()[-1] + b"\n", "is repeated"),
        (lambda data: data[: data.index(b"\n") + 1], "promises 6 lines, but 0 follow"),
        (lambda data: data[10:], "line 1 is not a trace header"),
        (lambda data: data.replace(b"running", b"walking"), "line 6 is not a trace entry"),
    ],
    ids=["within a line", "between lines", "longer", "to its header", "beheaded", "edited"],
)
def test_a_trace_that_is_not_whole_is_said_to_be_so(
    cut: Callable[[bytes], bytes], words: str
) -> None:
    """Wherever it was cut: its header says how long it was."""
    with pytest.raises(TraceError, match=words):
        trace.replay(cut(trace.encode("r.1", sample_life())))


def test_a_trace_of_a_job_that_lives_is_whole() -> None:
    """It was exported before the job's end; and a trace of old does not say how long it is."""
    life = sample_life(*PATH[:3])
    data = trace.encode("r.1", life)
    old = data.replace(b',"entries":3', b"")

    assert data != old
    assert fold(life) == trace.replay(data) == trace.replay(old)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"nonsense", "this is not a trace: line 1"),
        (b"\x7fELF\x02\x01\x00\xff\xfe", "this is not a trace: line 1"),
        (trace.encode("r.1", []) + b"nonsense\n", "line 2"),
        (trace.encode("r.1", []).replace(b'"format":1', b'"format":2'), "format 2"),
    ],
)
def test_what_is_no_trace_is_said(data: bytes, words: str) -> None:
    """Damage and newer formats, each with its line or version."""
    with pytest.raises(TraceError, match=words):
        trace.decode(data)


def test_lines_are_counted_through_a_file_of_several_traces() -> None:
    """Each stands for itself: one that is wrong does not hide the next."""
    data = trace.encode("r.1", [ONE]) + trace.encode("r.1", [ONE, THREE])
    parts = trace.split(data)

    assert [1, 3] == [line for line, _ in parts]
    assert "r.1" == trace.replay(parts[0][1]).id
    with pytest.raises(TraceError, match="line 5: event 3"):
        trace.replay(parts[1][1], line=3)
