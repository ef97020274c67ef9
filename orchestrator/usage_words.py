"""What a job used, in words, and what its author can do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.units import counted, duration, size
from states.job import Job
from states.outcome import Verdict
from states.spec import JobSpec
from states.usage import (
    OFTEN_THROTTLED,
    Usage,
    asked_memory,
    cpus_used,
    has_too_much_memory,
    lacks_cpus,
    throttled,
)


def usage_lines(job: Job) -> list[str]:
    """Lines `used: ...`, and a line for each hint; none for a job of which nothing is known."""
    if job.usage is None:
        return []
    lines = [_listed(_of_limits(job.usage, job.spec)), _listed(_others(job.usage))]
    return [f"used: {line}" for line in lines if line] + usage_hints(job)


def describe_usage(usage: Usage, spec: JobSpec | None) -> str:
    """`CPU 4.2 s (0.8 of 2 CPUs), memory at most 212 MiB of 4 GiB, read 1 MiB, ...`."""
    return _listed([*_of_limits(usage, spec), *_others(usage)])


def _listed(said: Iterable[str]) -> str:
    return ", ".join(said)


def _of_limits(usage: Usage, spec: JobSpec | None) -> Iterator[str]:
    if usage.cpu_ms is not None:
        yield f"CPU {duration(usage.cpu_ms / 1000)}{_of_cpus(usage, spec)}"
    if usage.memory_peak_bytes is not None:
        asked = asked_memory(spec) if spec is not None else None
        of = f" of {size(asked)}" if asked else ""
        yield f"memory at most {size(usage.memory_peak_bytes)}{of}"


def _others(usage: Usage) -> Iterator[str]:
    if usage.read_bytes is not None:
        yield f"read {size(usage.read_bytes)}"
    if usage.written_bytes is not None:
        yield f"wrote {size(usage.written_bytes)}"
    if usage.processes_peak is not None:
        many = "es" if usage.processes_peak != 1 else ""
        yield f"at most {usage.processes_peak} process{many}"


def _of_cpus(usage: Usage, spec: JobSpec | None) -> str:
    used = cpus_used(usage)
    if used is None or spec is None:
        return ""
    return f" ({used:.1f} of {counted(spec.cpus, 'CPU')})"


def usage_hints(job: Job) -> list[str]:
    """What the job's author can change in the job file, if the gap is large."""
    usage, spec, hints = job.usage, job.spec, []
    if usage is None or spec is None:
        return []
    if (part := throttled(usage)) >= OFTEN_THROTTLED:
        hints.append(
            f"throttled {_percent(part)} of the time: set `cpus` in the job file to give it more"
        )
    elif part := lacks_cpus(usage, spec):
        its = "its CPU was" if spec.cpus == 1 else f"its {spec.cpus} CPUs were"
        hints.append(
            f"{its} busy {_percent(part)} of the time: set `cpus` in the job file to give it more"
        )
    # A job that was cancelled may not have come to what needs it.
    if job.verdict is not Verdict.CANCELLED and has_too_much_memory(usage, spec):
        most = size(usage.memory_peak_bytes or 0)
        asked = size(asked_memory(spec) or 0)
        hints.append(f"asked for {asked}, used {most} at most: `memory` can be less")
    return hints


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"
