"""The Chrome trace format, which Perfetto and others open: a process a run, a thread a job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from orchestrator.tracing.timeline import Span, Timeline


def perfetto(jobs: Sequence[Timeline]) -> bytes:
    """The jobs as tracks, their states and incus calls as slices; times in microseconds."""
    zero = min(job.begin for job in jobs)
    events: list[dict[str, Any]] = []
    runs = {job.run: number for number, job in enumerate(jobs, start=1)}
    for run, process in runs.items():
        events.append(_named("process_name", process, 0, f"run {run}"))
    for track, job in enumerate(jobs, start=1):
        process = runs[job.run]
        events.append(_named("thread_name", process, 2 * track, f"{job.id} {job.name}"))
        events.append(_named("thread_name", process, 2 * track + 1, f"{job.id} incus"))
        events += [_slice(span, zero, process, 2 * track, "state") for span in job.states]
        events += [_slice(span, zero, process, 2 * track + 1, "incus") for span in job.calls]
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


def _named(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _slice(span: Span, zero: datetime, process: int, thread: int, kind: str) -> dict[str, Any]:
    return {
        "name": span.name,
        "cat": kind,
        "ph": "X",
        "ts": round((span.begin - zero).total_seconds() * 1e6),
        "dur": round(span.secs * 1e6),
        "pid": process,
        "tid": thread,
        "args": {"attempt": span.attempt, "ok": span.ok, "detail": span.detail},
    }
