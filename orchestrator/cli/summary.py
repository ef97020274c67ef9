"""What a person reads when a job, or a run, has ended: how, why, and what to type next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from orchestrator.attempt.archive import read_manifest
from orchestrator.cli import options
from orchestrator.cli.board import COLOURS, NAME, cut, name_cells, pad, shorten
from orchestrator.cli.cells import cell_len
from orchestrator.cli.colours import BOLD, DIM, RESET, YELLOW, painter
from orchestrator.cli.last_lines import last_lines
from orchestrator.cli.wrap import wrap
from orchestrator.silence import timeout_note
from orchestrator.terminal import first_line, plain
from orchestrator.units import counted, duration, size
from orchestrator.words import (
    STATES,
    VERDICTS,
    describe_flake,
    describe_tests,
    job_word,
    made_by,
    not_in_key,
)
from states.events import Entry, LeaseKept, Lost, Retried
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

if TYPE_CHECKING:
    from orchestrator.snapshot.snapshot import Snapshot

DOTS = "..."


def describe_snapshot(snapshot: Snapshot) -> str:
    """Which tree the jobs see, on one line."""
    changes = " with changes" if snapshot.dirty else ""
    commit = f"commit {snapshot.commit[:12]}{changes}" if snapshot.commit else "no commit"
    return f"snapshot {snapshot.hash[:12]} ({commit})"


def describe_news(entry: Entry) -> str:
    """What a person must hear of while a job goes on: another attempt, or a guest that was kept."""
    if isinstance(entry, Retried):
        return f"retrying in {entry.delay_secs:.1f} s: {first_line(entry.failure.message)}"
    if isinstance(entry, Lost):
        return f"starting over elsewhere: {first_line(entry.failure.message)}"
    return _describe_kept(entry) if isinstance(entry, LeaseKept) else ""


def _describe_kept(lease: LeaseKept) -> str:
    """How to look into a guest that was kept, and for how long it is there."""
    shell = f"pikaci shell {lease.job}{plain(options.root_flags)}"
    return f"guest kept until {lease.deadline.astimezone():%H:%M}; open a shell with: {shell}"


def note(job: Job, built: str | None = None) -> str:
    """What is to be said of a job beside its time. Reads the disk.

    That is how many tests it ran and artifacts it left, and what there is to know of its output;
    `built` says why it made that. Of a skipped job it is the reason.
    """
    if job.verdict is Verdict.SKIPPED:
        return plain(next(iter(reason(job)), ""))
    said = [describe_tests(job.tests), _artifacts(job)]
    if job.output is not None:
        made = f"built: {built}" if built else "built"
        said += [made_by(job.output) if job.state is State.REUSED else made]
        said += [not_in_key(job.output)]
    return plain(", ".join(filter(None, said)))


def _artifacts(job: Job) -> str:
    if not job.artifacts:
        return ""
    try:
        count = len(read_manifest(Path(job.artifacts)).files)
    except (OSError, msgspec.MsgspecError):
        return ""
    return counted(count, "artifact") if count else ""


def reason(job: Job) -> list[str]:
    """Why a job did not pass, and what to do about it: a few harmless lines."""
    if job.damage:
        return [plain(job.damage), "-> `pikaci doctor` says what to do"]
    if job.failure is None:
        return []
    first, *rest = job.failure.message.splitlines() or [""]
    during = ""
    if job.verdict is Verdict.INFRASTRUCTURE and job.failure.phase in STATES:
        during = f" (while {STATES[State(job.failure.phase)]})"
    code = f" (exit code {job.exit_code})" if job.exit_code and first != job.message else ""
    lines = [f"{plain(first)}{during}{code}", *(f"  {plain(line)}" for line in rest)]
    return lines + ([f"-> {plain(job.failure.resolution)}"] if job.failure.resolution else [])


def whole_reason(job: Job) -> list[str]:
    """`reason`, and how long a job that timed out had printed nothing. Reads the disk."""
    silence = timeout_note(job)
    return reason(job) + ([silence] if silence else [])


def failure_text(job: Job, *, colours: bool, log: bool, width: int | None = None) -> str:
    """The reason of a job that did not pass, and with `log` its last lines. Reads the disk.

    Lines of the reason are wrapped at `width`, if there is one.
    """
    if job.verdict is Verdict.SKIPPED:
        return ""  # its line has the reason, and nothing ran
    paint = painter(colours)
    reason = [wrap(line, width, "    ") for line in whole_reason(job)]
    text = "".join(f"{part}\n" for parts in reason for part in parts)
    if log and job.artifacts and job.state is not State.REJECTED:
        end = last_lines(job, colours=colours)
        if not end.whole:
            more = f"the last lines of {size(end.size)}; `pikaci logs {job.id}` prints all"
            text += paint(DIM, f"    {plain(more)}") + "\n"
        reset = RESET if colours else ""
        text += "".join(f"{paint(DIM, '    | ')}{line.rstrip()}{reset}\n" for line in end.lines)
    return text


def end_text(
    jobs: Sequence[Job],
    *,
    colours: bool,
    secs: float | None = None,
    interrupted: bool = False,
    width: int | None = None,
) -> str:
    """How a run ended in one line; below it what did not pass, and what to type next.

    Lines of what did not pass are cut to `width`, if there is one.
    """
    paint = painter(colours)
    text = ""
    for job in jobs:
        for warning in job.warnings:
            text += paint(YELLOW, plain(f"warning: {job.name}: {warning}")) + "\n"
        if flake := describe_flake(job):
            text += paint(YELLOW, plain(f"{job.name}: {flake}")) + "\n"
    text += _counts(jobs, paint(BOLD, "no job ran") if not jobs else "", colours=colours)
    text += f" in {duration(secs)}" if secs is not None else ""
    text += (", interrupted" if interrupted else "") + "\n"
    failed = [job for job in jobs if job.verdict not in (Verdict.PASSED, Verdict.SKIPPED)]
    failed = failed or [job for job in jobs if job.verdict is Verdict.SKIPPED]
    names = name_cells([plain(job.name) for job in failed], None) if failed else 0
    if width is not None:
        names = min(names, max(NAME, width // 2))
    for job in failed:
        why = next(iter(reason(job)), "")
        word = job_word(job)
        clear = job.verdict in (Verdict.FAILED, Verdict.TIMED_OUT) or why.startswith(word)
        said = why if why and clear else ": ".join(filter(None, (word, why)))
        name = pad(shorten(plain(job.name), names), names)
        line = f"  {name}  {said}"
        if width is not None and cell_len(line) >= width:
            line = cut(line, width - 1 - len(DOTS)) + DOTS
        text += line + "\n"
    ran = [job for job in failed if job.artifacts]
    if ran:
        flags = plain(options.root_flags)
        text += f"-> pikaci logs {shlex.quote(plain(ran[0].name))}{flags}\n"
        text += f"-> pikaci rerun --failed{flags}\n"
    return text


def summary(jobs: Sequence[Job], *, colours: bool, interrupted: bool = False) -> str:
    """A whole run that was not watched: each job that did not pass, and then `end_text`."""
    text = ""
    for job in jobs:
        if job.verdict is not Verdict.PASSED:
            said = f"{job.name}: {job_word(job)}"
            said += f": {note(job)}" if job.verdict is Verdict.SKIPPED else ""
            text += painter(colours)(BOLD, plain(said)) + "\n"
            text += failure_text(job, colours=colours, log=True) + "\n"
    return text + end_text(jobs, colours=colours, interrupted=interrupted)


def _counts(jobs: Sequence[Job], none: str, *, colours: bool) -> str:
    """`25 passed, 1 reused, 3 failed`."""
    paint = painter(colours)
    reused = sum(job.state is State.REUSED for job in jobs)
    count = Counter(job.verdict or Verdict.UNFINISHED for job in jobs)
    count[Verdict.PASSED] -= reused
    numbers = [(VERDICTS[verdict], count[verdict], COLOURS[verdict]) for verdict in Verdict]
    numbers.insert(1, (STATES[State.REUSED], reused, COLOURS[Verdict.PASSED]))
    shown = [paint(BOLD + colour, f"{number} {word}") for word, number, colour in numbers if number]
    return ", ".join(shown) or none
