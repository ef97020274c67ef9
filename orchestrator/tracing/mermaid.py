"""Mermaid: one job's path through its states, or a run as bars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from orchestrator.tracing.timeline import Timeline
from orchestrator.units import duration


def mermaid(jobs: Sequence[Timeline]) -> bytes:
    """A state diagram for one job; a Gantt chart with a section per job for several."""
    lines = _states(jobs[0]) if len(jobs) == 1 else _gantt(jobs)
    return "".join(f"{line}\n" for line in lines).encode()


def _states(job: Timeline) -> list[str]:
    ways: dict[tuple[str, str], list[str]] = {}
    for one, other in pairwise(job.states):
        ways.setdefault((one.name, other.name), []).append(duration(one.secs))
    lines = ["stateDiagram-v2", f"    [*] --> {job.states[0].name}"]
    lines += [f"    {one} --> {other} : {', '.join(secs)}" for (one, other), secs in ways.items()]
    return [*lines, f"    {job.states[-1].name} --> [*]"] if job.verdict else lines


def _gantt(jobs: Sequence[Timeline]) -> list[str]:
    zero = min(job.begin for job in jobs)
    lines = ["gantt", "    dateFormat x", "    axisFormat %M:%S"]
    for job in jobs:
        lines.append(f"    section {_plain(job.name)}")
        for span in job.states:
            start = round((span.begin - zero).total_seconds() * 1000)
            kind = "milestone, " if job.verdict and span is job.states[-1] else ""
            kind += "" if span.ok else "crit, "
            lines.append(f"    {span.name} :{kind}{start}, {max(1, round(span.secs * 1000))}ms")
    return lines


def _plain(name: str) -> str:
    # A name may be hostile: replace everything with a meaning in Mermaid.
    return re.sub(r"[^A-Za-z0-9._/ -]", "_", name)[:80] or "_"
