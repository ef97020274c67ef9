"""The Chrome trace format, for Perfetto and others: one process per run, tracks for each job.

A job of which samples are known has counter tracks, too: what it used, from its command's start.

The first track of a job has its states and their parts. Incus calls, which may begin in one state
and end in another, are on tracks below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from orchestrator.tracing.parts import parts
from orchestrator.tracing.timeline import Span, Timeline
from orchestrator.usage_samples import Sample, cpus_over_time
from states.lifecycle import State


def perfetto(
    jobs: Sequence[Timeline], samples: Mapping[str, Sequence[Sample]] = MappingProxyType({})
) -> bytes:
    """The jobs as tracks, states, effects and calls as slices; times in microseconds.

    `samples` are those of the jobs' last attempts, by job.
    """
    zero = min(job.begin for job in jobs)
    events: list[dict[str, Any]] = []
    runs = {job.run: number for number, job in enumerate(jobs, start=1)}
    for run, process in runs.items():
        events.append(_named("process_name", process, 0, f"run {run}"))
    track = 0
    for job in jobs:
        process = runs[job.run]
        inner = (part for state in job.states for part in parts(job, state))
        tracks = [("", [*job.states, *inner]), *((" incus", lane) for lane in _lanes(job.calls))]
        for name, spans in tracks:
            track += 1
            events.append(_named("thread_name", process, track, f"{job.id} {job.name}{name}"))
            order = {"sort_index": track}
            events.append({**_named("thread_sort_index", process, track, ""), "args": order})
            events += [_slice(span, zero, process, track) for span in spans]
        events += _counters(job, samples.get(job.id, ()), zero, process)
    return msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"})


def _counters(
    job: Timeline, samples: Sequence[Sample], zero: datetime, process: int
) -> Iterator[dict[str, Any]]:
    running = [state for state in job.states if state.name == State.RUNNING]
    if not running or not samples:
        return
    begin = round((running[-1].begin - zero).total_seconds() * 1e6)
    values: dict[str, Iterable[tuple[int, float | None]]] = {
        "CPUs": cpus_over_time(samples),
        "memory, bytes": ((one.ms, one.memory_bytes) for one in samples),
        "processes": ((one.ms, one.processes) for one in samples),
        "read, bytes": ((one.ms, one.read_bytes) for one in samples),
        "written, bytes": ((one.ms, one.written_bytes) for one in samples),
    }
    for name, points in values.items():
        for ms, value in points:
            if value is not None:
                yield {
                    "name": f"{job.id} {job.name} {name}",
                    "ph": "C",
                    "pid": process,
                    "ts": begin + ms * 1000,
                    "args": {"value": value},
                }


def _lanes(calls: Iterable[Span]) -> list[list[Span]]:
    """Put overlapping calls on separate tracks: slices on one track must nest."""
    lanes: list[list[Span]] = []
    for call in sorted(calls, key=lambda call: call.begin):
        free = next((lane for lane in lanes if lane[-1].end <= call.begin), None)
        if free is None:
            lanes.append([call])
        else:
            free.append(call)
    return lanes


def _named(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _slice(span: Span, zero: datetime, process: int, thread: int) -> dict[str, Any]:
    # Round both ends the same way, so that adjacent slices stay adjacent.
    begin, end = (round((at - zero).total_seconds() * 1e6) for at in (span.begin, span.end))
    told = {"detail": span.detail, "error": span.error, "after": span.after}
    return {
        "name": span.name,
        "cat": span.kind,
        "ph": "X",
        "ts": begin,
        "dur": end - begin,
        "pid": process,
        "tid": thread,
        "args": {
            "attempt": span.attempt,
            "ok": span.ok,
            **{key: text for key, text in told.items() if text},
        },
    }
