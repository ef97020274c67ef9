"""The end of a run as a person reads it: what did not pass, why, and the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from orchestrator.log_end import read_log_end
from orchestrator.report import RunReport
from orchestrator.settings import open_incus
from orchestrator.terminal import RESET, plain
from orchestrator.units import size
from orchestrator.words import STATES, VERDICTS, job_word
from states.events import LeaseKept
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

if TYPE_CHECKING:
    from orchestrator.snapshot.snapshot import Snapshot

GREEN, RED, YELLOW, DIM, BOLD = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[1m"
COLOURS = {
    Verdict.PASSED: GREEN,
    Verdict.FAILED: RED,
    Verdict.TIMED_OUT: RED,
    Verdict.INFRASTRUCTURE: YELLOW,
    Verdict.REJECTED: YELLOW,
    Verdict.CANCELLED: YELLOW,
    Verdict.UNFINISHED: YELLOW,
}


def describe_snapshot(snapshot: Snapshot) -> str:
    """Which tree the jobs see, on one line."""
    commit = f"commit {snapshot.commit[:12]}" if snapshot.commit else "no commit"
    changes = " with changes" if snapshot.dirty else ""
    return f"snapshot {snapshot.hash[:12]} ({commit}{changes})"


def describe_kept(lease: LeaseKept) -> str:
    """How to look into a guest that was kept, and for how long it is there."""
    incus = open_incus()
    shell = shlex.join(
        ["incus", "exec", "--project", incus.project, incus.name(lease.instance), "--", "bash"]
    )
    return f"guest kept until {lease.deadline.astimezone():%H:%M}; a shell in it: {shell}"


def write_summary(out: TextIO, report: RunReport, jobs: Sequence[Job], *, colours: bool) -> None:
    """Each job that did not pass, with its log's end; then one line for the run."""
    paint = painter(colours)
    for job in jobs:
        if job.verdict is not Verdict.PASSED:
            _write_failure(out, job, colours=colours)
        for warning in job.warnings:
            out.write(paint(YELLOW, plain(f"warning: {job.name}: {warning}")) + "\n")
    passed = sum(job.verdict is Verdict.PASSED for job in jobs)
    verdict = paint(BOLD + COLOURS[report.outcome], VERDICTS[report.outcome])
    out.write(f"{verdict}: {passed} of {len(jobs)} jobs passed (exit code {report.exit_code})\n")
    out.flush()


def _write_failure(out: TextIO, job: Job, *, colours: bool) -> None:
    paint = painter(colours)
    title = plain(f"{job.name}: {job_word(job)}")
    out.write("\n" + paint(BOLD, title) + "\n")
    if job.artifacts and job.state is not State.REJECTED:
        _write_log_end(out, Path(job.artifacts) / "guest.log", colours=colours)
    if job.damage:
        out.write(f"{plain(job.damage)}\n  -> `pikaci doctor` says what can be done\n")
    if job.failure:
        first, *rest = job.failure.message.splitlines() or [""]
        phase = STATES.get(job.failure.phase, job.failure.phase)
        when = f" (while {phase})" if job.verdict is Verdict.INFRASTRUCTURE else ""
        out.write(f"{plain(first)}{when}\n")
        for line in rest:
            out.write(f"    {plain(line)}\n")
        if job.failure.resolution:
            out.write(f"  -> {plain(job.failure.resolution)}\n")
    if job.artifacts:
        where = plain(f"log: {job.artifacts}/guest.log; `pikaci trace {job.id}`")
        out.write(paint(DIM, where) + "\n")
    out.write("\n")


def _write_log_end(out: TextIO, log: Path, *, colours: bool) -> None:
    end = read_log_end(log, colours=colours)
    if not end.whole:
        out.write(plain(f"  ... the log's end; all {size(end.size)}: {log}") + "\n")
    paint = painter(colours)
    for line in end.lines:
        out.write(f"{paint(DIM, '  | ')}{line.rstrip()}{RESET if colours else ''}\n")


def painter(colours: bool) -> Callable[[str, str], str]:
    """What puts a code around a text, where colours are wanted."""

    def paint(code: str, text: str) -> str:
        return f"{code}{text}{RESET}" if colours else text

    return paint
