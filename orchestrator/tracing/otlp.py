"""OTLP JSON, made afterwards: one trace per run; spans for jobs, states, and calls in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import msgspec

from orchestrator.tracing.parts import parts
from orchestrator.tracing.timeline import Kind, Span, Timeline
from states.outcome import Verdict
from states.usage import Usage

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTERNAL, _CLIENT = 1, 3
_OK, _ERROR = 1, 2


def otlp(jobs: Sequence[Timeline]) -> bytes:
    """An ExportTraceServiceRequest. Ids are hashes, so a second export gives the same trace."""
    spans: list[dict[str, Any]] = []
    for run in dict.fromkeys(job.run for job in jobs):
        own = [job for job in jobs if job.run == run]
        begin, end = min(job.begin for job in own), max(job.end for job in own)
        ok = all(job.verdict in (None, Verdict.PASSED) for job in own)
        whole = _whole(f"run {run}", begin, end, ok=ok)
        spans.append(_span(whole, (run,), {"pikaci.run": run}))
        for job in own:
            spans += _job(job)
    resource = [_value("service.name", "pikaci"), _value("service.version", version("pikaci"))]
    scope = {"scope": {"name": "pikaci"}, "spans": spans}
    return msgspec.json.encode(
        {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}
    )


def _job(job: Timeline) -> Iterator[dict[str, Any]]:
    path = (job.run, job.id)
    error = " ".join(job.failure.message.split()) if job.failure else ""
    ok = job.verdict in (None, Verdict.PASSED)
    about: dict[str, str | int] = {
        "pikaci.run": job.run,
        "pikaci.job": job.id,
        "pikaci.name": job.name,
        "pikaci.verdict": job.verdict or "",
        "pikaci.attempts": max(1, job.job.attempt),
        "pikaci.snapshot": job.job.snapshot.hash if job.job.snapshot else "",
        "pikaci.exit_code": "" if job.job.exit_code is None else job.job.exit_code,
        "pikaci.needs": " ".join(job.job.needs.values()),
        "pikaci.inputs": " ".join(output.key for output in job.job.inputs.values()),
        "pikaci.output": job.job.output.key if job.job.output else "",
        "pikaci.output_missing": job.missing or "",
        **_used(job.job.usage),
    }
    yield _span(_whole(job.name, job.begin, job.end, ok=ok, error=error), path, about)
    inside: dict[int, tuple[str, ...]] = {}
    for number, state in enumerate(job.states):
        own = (*path, "state", str(number))
        yield _span(state, own, {"pikaci.attempt": state.attempt}, up=2)
        for place, part in enumerate(parts(job, state)):
            if part.kind in (Kind.WAIT, Kind.HOST):
                about = {"pikaci.kind": part.kind, "pikaci.after": part.after}
                yield _span(part, (*own, "part", str(place)), about, up=2)
        for place, call in enumerate(job.calls):
            if state.begin <= call.begin and call.end <= state.end and place not in inside:
                inside[place] = own
    for place, call in enumerate(job.calls):
        # A call that is not within one state is a child of the job.
        about = {"pikaci.command": call.detail, "pikaci.attempt": call.attempt}
        yield _span(call, (*inside.get(place, path), "incus", str(place)), about, up=2)


def _used(usage: Usage | None) -> dict[str, str | int]:
    known: dict[str, int] = msgspec.to_builtins(usage) if usage is not None else {}
    return {f"pikaci.usage.{name}": value for name, value in known.items()}


def _whole(name: str, begin: datetime, end: datetime, *, ok: bool, error: str = "") -> Span:
    return Span(name=name, kind=Kind.STATE, begin=begin, end=end, attempt=1, error=error, ok=ok)


def _span(
    span: Span, path: tuple[str, ...], about: dict[str, str | int], *, up: int = 1
) -> dict[str, Any]:
    """A span at a path; its parent's path lacks the last `up` elements."""
    return {
        "traceId": _id(path[:1], 16),
        "spanId": _id(path, 8),
        "parentSpanId": _id(path[:-up], 8) if path[:-up] else "",
        "name": span.name,
        "kind": _CLIENT if span.kind is Kind.CALL else _INTERNAL,
        "startTimeUnixNano": _nanoseconds(span.begin),
        "endTimeUnixNano": _nanoseconds(span.end),
        "attributes": [_value(key, value) for key, value in about.items() if value != ""],
        "status": {"code": _OK}
        if span.ok
        else {"code": _ERROR, "message": span.error or span.detail},
    }


def _value(key: str, value: str | int) -> dict[str, Any]:
    typed = {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
    return {"key": key, "value": typed}


def _id(path: tuple[str, ...], size: int) -> str:
    return hashlib.sha256("\0".join(("pikaci", *path)).encode()).hexdigest()[: 2 * size]


def _nanoseconds(moment: datetime) -> str:
    return str((moment - _EPOCH) // timedelta(microseconds=1) * 1000)
