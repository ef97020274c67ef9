"""OTLP JSON, made after the fact: one trace a run, a span a job, and below it states and calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from orchestrator.tracing.timeline import Span, Timeline
from states.outcome import Verdict

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OK, _ERROR = 1, 2


def otlp(jobs: Sequence[Timeline]) -> bytes:
    """An ExportTraceServiceRequest. Ids are hashes: exported twice, it is the same trace."""
    spans = []
    for run in dict.fromkeys(job.run for job in jobs):
        own = [job for job in jobs if job.run == run]
        whole = Span(
            name=f"run {run}",
            begin=min(job.begin for job in own),
            end=max(job.end for job in own),
            attempt=1,
            ok=all(job.verdict in (None, Verdict.PASSED) for job in own),
        )
        spans.append(_span(whole, run, (run,), ()))
        for job in own:
            spans += _job(job)
    return msgspec.json.encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": [_text("service.name", "pikaci")]},
                    "scopeSpans": [{"scope": {"name": "pikaci"}, "spans": spans}],
                }
            ]
        }
    )


def _job(job: Timeline) -> list[dict[str, Any]]:
    whole = Span(
        name=job.name,
        begin=job.begin,
        end=job.end,
        attempt=max(span.attempt for span in job.states),
        detail=job.failure.message if job.failure else "",
        ok=job.verdict in (None, Verdict.PASSED),
    )
    path = (job.run, job.id)
    spans = [_span(whole, job.run, path, (job.run,))]
    for kind, found in (("state", job.states), ("incus", job.calls)):
        for number, span in enumerate(found):
            spans.append(_span(span, job.run, (*path, kind, str(number)), path))
    return spans


def _span(span: Span, run: str, path: tuple[str, ...], parent: tuple[str, ...]) -> dict[str, Any]:
    return {
        "traceId": _id((run,), 16),
        "spanId": _id(path, 8),
        "parentSpanId": _id(parent, 8) if parent else "",
        "name": span.name,
        "kind": 1,
        "startTimeUnixNano": _nanoseconds(span.begin),
        "endTimeUnixNano": _nanoseconds(span.end),
        "attributes": [
            {"key": "pikaci.attempt", "value": {"intValue": str(span.attempt)}},
            _text("pikaci.path", "/".join(path)),
        ],
        "status": {"code": _OK if span.ok else _ERROR, "message": "" if span.ok else span.detail},
    }


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _id(path: tuple[str, ...], size: int) -> str:
    return hashlib.sha256("\0".join(("pikaci", *path)).encode()).hexdigest()[: 2 * size]


def _nanoseconds(moment: datetime) -> str:
    return str((moment - _EPOCH) // timedelta(microseconds=1) * 1000)
