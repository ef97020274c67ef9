"""The data of the graph of what a job used over its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from orchestrator.units import duration, size
from orchestrator.usage_samples import Sample, cpus_over_time
from orchestrator.usage_words import describe_usage, usage_hints
from states.job import Job
from states.usage import asked_memory

# Of the drawing, in SVG units.
WIDTH, HEIGHT = 1000, 60
# More samples than this are drawn as this many.
POINTS = 250
_TICKS = 4


@dataclass(frozen=True)
class Curve:
    """One value over time: `points` of a line in an SVG, whose top is `most`, in words."""

    kind: str
    name: str
    points: str
    most: str


@dataclass(frozen=True)
class UsageView:
    """What a job used, in a line, with hints; and as curves, none for a job that was short."""

    line: str
    hints: tuple[str, ...]
    curves: tuple[Curve, ...] = ()
    ticks: tuple[str, ...] = ()


def usage_view(job: Job, samples: Sequence[Sample]) -> UsageView | None:
    """What the page shows of a job's usage; None if nothing is known of it."""
    if job.usage is None or not (line := describe_usage(job.usage, job.spec)):
        return None
    hints = tuple(usage_hints(job))
    if len(samples) < 2:
        return UsageView(line, hints)
    end = max(samples[-1].ms, job.usage.elapsed_ms or 0, 1)
    few = thinned(samples)
    cpus = cpus_over_time(few)
    memory = [(one.ms, float(one.memory_bytes)) for one in few if one.memory_bytes is not None]
    curves = []
    if cpus:
        top = max(float(job.spec.cpus) if job.spec else 0.0, *(used for _, used in cpus))
        curves.append(Curve("cpu", "CPUs", _points(cpus, end, top), f"{top:.3g}"))
    if memory:
        asked = (asked_memory(job.spec) if job.spec else None) or 0
        peak = max(used for _, used in memory)
        # Of a job that used a small part of its memory, a curve up to the limit would be flat.
        top = peak if asked > 2 * peak else max(float(asked), peak)
        curves.append(Curve("memory", "memory", _points(memory, end, top), size(int(top))))
    ticks = tuple(duration(end / 1000 * n / _TICKS) if n else "0" for n in range(_TICKS + 1))
    return UsageView(line, hints, tuple(curves), ticks)


def thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """At most `POINTS` samples: the last of so many, with the most memory that one of them has."""
    step = -(-len(samples) // POINTS)
    if step == 1:
        return samples
    found = []
    for at in range(0, len(samples), step):
        some = samples[at : at + step]
        peaks = [one for one in some if one.memory_bytes is not None]
        memory = max(peaks, key=lambda one: one.memory_bytes or 0, default=some[-1])
        found.append(replace(some[-1], memory_bytes=memory.memory_bytes))
    return found


def _points(values: Sequence[tuple[int, float]], end: int, top: float) -> str:
    scale = HEIGHT / top if top > 0 else 0.0
    return " ".join(f"{ms * WIDTH / end:.1f},{HEIGHT - y * scale:.1f}" for ms, y in values)
