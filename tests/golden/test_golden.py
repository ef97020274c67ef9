"""Traces of real runs, folded by today's table. They were recorded by `tests.golden.record`."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.tracing.timeline import timeline
from states import lifecycle, trace
from states.errors import TraceError
from states.events import tag
from states.outcome import Verdict

TRACES = Path(__file__).parent / "traces"
STARTED = "submitted artifacts_reset devices_configured instance_ready running"
ENDS = {
    "passed": (f"{STARTED} result_collected", Verdict.PASSED),
    "failed": (f"{STARTED} result_collected", Verdict.FAILED),
    "timed_out": (f"{STARTED} result_collected", Verdict.TIMED_OUT),
    "waited": (f"{STARTED} result_collected", Verdict.PASSED),
    "recovered": (f"{STARTED} result_collected", Verdict.PASSED),
    "cancelled": (f"{STARTED} cancelling cancelled", Verdict.CANCELLED),
    "infrastructure": ("submitted artifacts_reset failed", Verdict.INFRASTRUCTURE),
    "rejected": ("rejected", Verdict.REJECTED),
}


def test_every_trace_is_known() -> None:
    """None stands here that nobody looks at."""
    assert set(ENDS) == {path.stem for path in TRACES.glob("*.jsonl")}


@pytest.mark.parametrize("name", ENDS)
def test_a_trace_of_old_replays_today(name: str) -> None:
    """To the same path and the same verdict, and it can be drawn."""
    data = (TRACES / f"{name}.jsonl").read_bytes()
    try:
        job = trace.replay(data)
    except TraceError as error:
        pytest.fail(f"the trace {name} does not replay any more: {error}")
    path, verdict = ENDS[name]

    assert (path.split(), verdict) == ([phase.state for phase in job.phases], job.verdict)
    assert path.split() == [span.name for span in timeline(trace.decode(data)).states]


@pytest.mark.parametrize("name", ENDS)
def test_a_table_that_forgets_a_way_breaks_the_traces_that_took_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any one of the events that a trace has, it does not replay."""
    data = (TRACES / f"{name}.jsonl").read_bytes()
    for used in {tag(type(e)) for e in trace.decode(data) if hasattr(e, "seq")}:
        table = [row for row in lifecycle.TABLE if row[0] != used]
        with monkeypatch.context() as patch:
            machine = lifecycle.build_machine(table)
            patch.setattr(lifecycle, "machine", lambda machine=machine: machine)
            with pytest.raises(TraceError, match=f"recorded event is {used}; .* cannot take it"):
                trace.replay(data)
