"""Traces: written, read and replayed; damage is named by its line."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([*sample_life(*PATH[:2]), *sample_life(*PATH[:4])[3:]], "line 4"),
        ([*sample_life(*PATH[:2]), sample_life(*PATH[:2])[1]], "line 4"),
        ([*sample_life(ev.Submitted), sample_event(ev.ArtifactsReset, 2, job="x")], "job x"),
        ([sample_event(ev.Submitted, 1), sample_note(job="x")], "line 3 belongs to job x"),
        ([*sample_life(ev.Submitted), sample_event(ev.Running, 2)], "line 3.*cannot take"),
    ],
    ids=["gap", "repeated", "foreign", "foreign note", "illegal"],
)
def test_a_wrong_trace_is_named_by_its_line(entries: list[ev.Entry], words: str) -> None:
    """A gap, a repeated, a foreign or an illegal event."""
    with pytest.raises(TraceError, match=words):
        trace.replay(trace.encode("r.1", entries))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1"),
        (b"nonsense", "line 1"),
        (trace.encode("r.1", []) + b"nonsense\n", "line 2"),
        (trace.encode("r.1", []).replace(b'"format":1', b'"format":2'), "format 2"),
    ],
)
def test_what_is_no_trace_is_said(data: bytes, words: str) -> None:
    """Damage and newer formats, each with its line or version."""
    with pytest.raises(TraceError, match=words):
        trace.decode(data)
