"""The data of a job's page: its states as steps, its time as bars, its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from orchestrator.tracing.html import kind_of
from orchestrator.tracing.parts import afterwards, parts
from orchestrator.tracing.timeline import Span, Timeline
from orchestrator.units import duration
from orchestrator.words import STATES, job_word
from states.job import Job, Phase
from states.lifecycle import State
from states.spec import JobSpec

# Width of a drawing, in SVG units.
WIDTH = 1000
_NARROWEST = 2.0
_TICKS = 4
_PATH: tuple[State, ...] = (
    State.SUBMITTED,
    State.ARTIFACTS_RESET,
    State.DEVICES_CONFIGURED,
    State.INSTANCE_READY,
    State.RUNNING,
    State.RESULT_COLLECTED,
)


@dataclass(frozen=True)
class Step:
    """A state of the job. `kind` is `done`, `now`, `next`, or `end` for the final one.

    `secs` is the time spent in it; `since` is when the current state began.
    """

    name: str
    kind: str
    state: State
    secs: float | None = None
    since: datetime | None = None


@dataclass(frozen=True)
class Bar:
    """A span of time: `x` and `width` of its bar, and its description in words.

    `kind` is its class in the page, which begins with `t-`.
    """

    kind: str
    x: float
    width: float
    title: str
    name: str
    attempt: int
    secs: float
    detail: str
    error: str
    ok: bool


@dataclass(frozen=True)
class Drawing:
    """A job's time: its states, their parts and what came after, and the labels of the scale."""

    states: tuple[Bar, ...]
    parts: tuple[Bar, ...]
    ticks: tuple[str, ...]


def steps(job: Job) -> tuple[Step, ...]:
    """The states of the current attempt: past, current and next ones."""
    phases = _attempt(job.phases)
    found = []
    for phase in phases[:-1]:
        secs = None if phase.duration_ms is None else phase.duration_ms / 1000
        found.append(Step(STATES[phase.state], "done", phase.state, secs))
    last = phases[-1]
    kind = "end" if job.ended else "now"
    since = None if job.ended else last.entered_at
    found.append(Step(job_word(job), kind, last.state, since=since))
    path = _PATH
    if job.spec is not None and job.spec.output is not None:
        path = (*_PATH[:-1], State.PUBLISHING, _PATH[-1])
    if not job.ended and last.state in path:
        found += [
            Step(STATES[state], "next", state) for state in path[path.index(last.state) + 1 :]
        ]
    return tuple(found)


def _attempt(phases: Sequence[Phase]) -> Sequence[Phase]:
    begins = [n for n, phase in enumerate(phases) if phase.state is State.SUBMITTED]
    return phases[begins[-1] :] if begins else phases


def drawing(line: Timeline) -> Drawing:
    """The timeline as bars."""
    zero = line.begin
    whole = max((line.end - zero).total_seconds(), 0.001)

    def bar(span: Span, kind: str) -> Bar:
        x = max(0.0, (span.begin - zero).total_seconds()) / whole * WIDTH
        x = min(x, WIDTH - _NARROWEST)
        width = max(_NARROWEST, span.secs / whole * WIDTH)
        name = STATES.get(span.name, span.name)
        title = f"{name}, {duration(span.secs)}, attempt {span.attempt}"
        return Bar(
            kind=f"t-{kind}" if span.ok else f"t-{kind} fault",
            x=round(x, 2),
            width=round(min(width, WIDTH - x), 2),
            title="\n".join(part for part in (title, span.detail, span.error) if part),
            name=name,
            attempt=span.attempt,
            secs=span.secs,
            detail=span.detail,
            error=span.error,
            ok=span.ok,
        )

    inner = [part for state in line.states for part in parts(line, state)]
    return Drawing(
        states=tuple(bar(span, span.name) for span in line.states),
        parts=tuple(bar(span, kind_of(span)) for span in (*inner, *afterwards(line))),
        ticks=tuple(duration(whole * n / _TICKS) if n else "0" for n in range(_TICKS + 1)),
    )


def settings(spec: JobSpec) -> dict[str, Any]:
    """The settings of a spec that differ from the defaults, without command and description."""
    usual = msgspec.to_builtins(JobSpec(command=""))
    asked: dict[str, Any] = msgspec.to_builtins(spec)
    return {
        key: value
        for key, value in asked.items()
        if key not in ("command", "description") and value != usual.get(key)
    }
