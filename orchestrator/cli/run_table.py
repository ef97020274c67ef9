"""Runs and jobs in columns, for `pikaci list` and `pikaci status`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from orchestrator.cli import colours
from orchestrator.cli.board import ASCII, COLOURS, UNICODE
from orchestrator.cli.table import Column, table
from orchestrator.cli.wrap import wrap
from orchestrator.incus import LOCAL
from orchestrator.terminal import first_line, plain
from orchestrator.units import age, counted, duration
from orchestrator.usage_words import usage_lines
from orchestrator.words import (
    DAMAGED,
    STATES,
    VERDICTS,
    case_lines,
    describe_flake,
    failed_case_lines,
    job_word,
    made_by,
    not_in_key,
    place,
)
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict

if TYPE_CHECKING:
    from orchestrator.journal import JobRow

# A narrower terminal has the age of a run, and how many of its jobs passed, instead of more.
WIDE = 60


def print_runs(
    runs: Mapping[str, Sequence[JobRow]],
    unreadable: Collection[str],
    *,
    with_jobs: bool,
    members: Mapping[str, str],
) -> None:
    """A line for each run; with `with_jobs`, its jobs below it.

    `members` are the members of clusters that have or had the guests of jobs, by job.
    """
    width = _width()
    lines = table(_run_columns(runs, unreadable, width), width, _paint(), _dots())
    click.echo(lines[0])
    for line, rows in zip(lines[1:], runs.values(), strict=True):
        click.echo(line)
        for row in rows if with_jobs else ():
            word = DAMAGED if row.id in unreadable else job_word(row)
            where = place(row.host, members.get(row.id, ""))
            on = f"  on {plain(where)}" if row.host else ""
            click.echo(f"  {plain(row.id)}  {plain(row.name)}  {word}{on}")


def print_warm(hosts: Sequence[str]) -> None:
    """A line that counts warm guests, if there are any. `hosts` has one name each, "" for local."""
    numbers = Counter(host or LOCAL for host in hosts)
    where = ", ".join(f"{number} on {plain(host)}" for host, number in sorted(numbers.items()))
    if hosts:
        said = f"{counted(len(hosts), 'warm guest')} for the next jobs"
        click.echo(said if set(numbers) == {LOCAL} else f"{said}: {where}")


def print_jobs(jobs: Sequence[Job]) -> None:
    """A line for each job: its state, its time in the queue and since, and why it did not pass.

    And its host, if one of them is not on this machine.
    """
    unfinished = {job.id for job in jobs if not job.ended}
    why = [_why(job, unfinished) for job in jobs]
    codes = [COLOURS.get(job.verdict, "") if job.verdict else "" for job in jobs]
    columns = [
        Column("JOB", [job.id for job in jobs], gives=2),
        Column("NAME", [plain(job.name) for job in jobs], 4, least=8, stay=True, middle=True),
        Column("STATE", [job_word(job) for job in jobs], 5, least=8, stay=True, codes=codes),
        *_hosts([_host(job) for job in jobs], gives=6),
        Column("QUEUED", [duration(job.queued_ms / 1000) for job in jobs], gives=3, right=True),
        Column("TIME", [_spent(job) for job in jobs], right=True),
        Column("WHY", why, gives=1, least=10),
    ]
    if not any(why):
        del columns[-1]
    print_table(columns)


def _host(job: Job) -> str:
    """Where a job is, or may be; "" if it was begun nowhere."""
    if job.hosts:
        return "" if job.ended else " or ".join(job.hosts)
    return place(job.host or LOCAL, job.member)


def _hosts(names: Sequence[str], gives: int) -> list[Column]:
    """A column of hosts; none if all of them are this machine."""
    if {LOCAL, ""}.issuperset(names):
        return []
    shown = [plain(name) for name in names]
    return [Column("HOST", shown, gives, least=8, stay=True, middle=True)]


def print_flakes(jobs: Sequence[Job]) -> None:
    """A line for each job that is known to be flaky."""
    for job in jobs:
        if flake := describe_flake(job):
            click.echo(_paint()(colours.YELLOW, plain(f"{job.name}: {flake}")))


def print_usage(job: Job) -> None:
    """What a job used, and what follows from it."""
    for line in usage_lines(job):
        click.echo(f"  {line}")


def print_tests(job: Job) -> None:
    """The first tests of a job that failed, how many it had, and the slowest."""
    for line in (*failed_case_lines(job.tests), *case_lines(job.tests)):
        for part in wrap(plain(line), _width(), "  "):
            click.echo(part)


def print_table(columns: Sequence[Column]) -> None:
    """Print columns, as wide as the terminal is."""
    for line in table(columns, _width(), _paint(), _dots()):
        click.echo(line)


def _why(job: Job, unfinished: Collection[str]) -> str:
    """Why a job did not pass, who made what it reuses, or which job it waits for."""
    if job.damage or job.failure:
        return first_line(job.damage or (job.failure.message if job.failure else ""))
    if job.state is State.REUSED and job.output is not None:
        said = ", ".join(filter(None, (made_by(job.output), not_in_key(job.output))))
        return first_line(said)
    if job.state is State.SUBMITTED:
        rest = [name for name, id in job.needs.items() if id in unfinished]
        return first_line(f"waits for {', '.join(rest)}") if rest else ""
    return first_line(not_in_key(job.output)) if job.output is not None else ""


def _spent(job: Job) -> str:
    return "" if job.state in (State.REUSED, State.SKIPPED) else duration(job.run_ms / 1000)


def _run_columns(
    runs: Mapping[str, Sequence[JobRow]], unreadable: Collection[str], width: int | None
) -> list[Column]:
    narrow = width is not None and width < WIDE
    counts = [_counts(rows, unreadable, narrow=narrow) for rows in runs.values()]
    numbers = [f"#{rows[0].number}" for rows in runs.values()]
    return [
        Column("RUN", [plain(run) for run in runs], 3, least=8, stay=True, middle=True),
        Column("NO", numbers, gives=4, right=True),
        Column("WHEN", [_when(rows, narrow=narrow) for rows in runs.values()]),
        *_hosts([_hosts_of(rows) for rows in runs.values()], gives=4),
        Column("TIME", [_time(rows) for rows in runs.values()], gives=2, right=True),
        Column("JOBS", counts, gives=1, least=10),
    ]


def _hosts_of(rows: Sequence[JobRow]) -> str:
    """The hosts of a run's jobs, of which a job that has not begun may have none."""
    names = sorted({row.host or LOCAL for row in rows if row.host or row.begun})
    return ", ".join(names)


def _when(rows: Sequence[JobRow], *, narrow: bool) -> str:
    began = rows[0].submitted
    if began is None:
        return "unknown"
    if narrow:
        return age((datetime.now(UTC) - began).total_seconds())
    return f"{began.astimezone():%Y-%m-%d %H:%M:%S}"


def _time(rows: Sequence[JobRow]) -> str:
    """From the submission to the last job's end; empty before that."""
    began = rows[0].submitted
    moments = [row.moved for row in rows]
    if began is None or not all(row.ended for row in rows):
        return ""
    ended = max((moment for moment in moments if moment is not None), default=began)
    return duration((ended - began).total_seconds())


def _counts(rows: Sequence[JobRow], unreadable: Collection[str], *, narrow: bool) -> str:
    """`3 failed, 25 passed`, what needs attention first; or `25/28 passed`."""
    words = Counter(DAMAGED if row.id in unreadable else job_word(row) for row in rows)
    passed = VERDICTS[Verdict.PASSED]
    if narrow:
        reused = words[STATES[State.REUSED]]
        return f"{words[passed] + reused}/{len(rows)} {passed}"
    last = [passed] if passed in words else []
    return ", ".join(
        f"{words[word]} {word}" for word in [*(word for word in words if word != passed), *last]
    )


def _width() -> int | None:
    """The columns of the terminal that stdout is, None if it is none."""
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return None


def _paint() -> colours.Paint:
    return colours.painter(colours.wanted())


def _dots() -> str:
    return UNICODE.cut if colours.can_print(UNICODE.cut) else ASCII.cut
