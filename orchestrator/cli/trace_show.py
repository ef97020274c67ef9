"""`pikaci trace JOB` and `RUN` for people: bars of time, what filled them, and what went wrong."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.board import COLOURS
from orchestrator.cli.colours import BOLD, DIM, painter
from orchestrator.cli.wrap import wrap
from orchestrator.log_end import read_log_end
from orchestrator.terminal import plain
from orchestrator.tracing.egress_lines import egress_lines
from orchestrator.tracing.parts import Share
from orchestrator.tracing.timeline import DELAY, HOST, INCUS, Kind
from orchestrator.units import counted, duration, seconds
from orchestrator.words import place, verdict_or_state
from states.events import WaitFor
from states.lifecycle import State
from states.outcome import FailureKind, Verdict

if TYPE_CHECKING:
    from orchestrator.tracing.story import JobStory, RunStory, StateStory

COLUMNS = 80  # where no terminal says how many it has
BAR = 20
LOG_LINES = 10
LOG_BYTES = 16 * 1024
FAULTS = 3
JOBS = 40
# Shorter is not shown: nobody makes a job faster by it.
SMALL = 0.01

WAITS = {
    WaitFor.PLACE.value: "a slot",
    WaitFor.IMAGE.value: "the image to be looked up",
    WaitFor.SECRET.value: "a missing secret",
    WaitFor.INPUT.value: "jobs that it needs",
    WaitFor.OUTPUT.value: "another job that makes the same output",
    INCUS: "a retry of an incus command",
    DELAY: "the next attempt after a fault",
    "ready": "the guest to be ready",
}
OWN_WORK = "pikaci's own work"


def show_job(job: JobStory, *, holder: str, told: Sequence[str] = ()) -> None:
    """What happened to a job. `holder` is who drives one that has not ended, in words.

    `told` are lines about the outputs that it used, its own, and its tests.
    """
    paint = painter(_colours())
    columns = _columns()
    title = f"{plain(job.name)}  {verdict_or_state(job.verdict, job.state)}"
    title += f" {'after' if job.verdict else 'for'} {duration(job.secs)}"
    where = f"   job {job.id}, run {job.run}{_on(job.host, job.member)}"
    click.echo(paint(BOLD, title) + paint(DIM, where))
    for line in told:
        click.echo(f"  {_clip(plain(line), columns - 2)}")
    for state in job.states:
        if state.attempt > 1 and state.state == State.SUBMITTED:
            click.echo(f"  attempt {state.attempt}, as: {_clip(plain(state.detail), columns - 18)}")
        _show_state(job, state)
    if job.release:
        click.echo(paint(DIM, "  after the verdict"))
        for part in job.release:
            click.echo(_part(part))
    _show_path(job, columns)
    if job.silence is not None:
        click.echo(f"  silent {job.silence}")
    if job.egress is not None:
        for line in egress_lines(job.egress):
            click.echo(f"  {line}")
    if holder:
        click.echo(f"  {holder}")
    if job.verdict is not Verdict.PASSED:
        _show_failure(job, columns)
    for warning in job.warnings:
        click.echo(f"  warning: {plain(warning)}")
    click.echo(paint(DIM, f"  more: pikaci trace {job.id} --verbose; pikaci logs {job.id}"))


def _show_state(job: JobStory, state: StateStory) -> None:
    whole = max(job.secs, 0.001)
    if state.state in _ENDS and not state.secs:
        return
    bar = _bar(state.begin / whole, state.secs / whole, "#")
    percent = f"{100 * state.secs / whole:3.0f} %"
    click.echo(f"  {state.state:18} {seconds(state.secs)}  {percent}  |{bar}|")
    for part in state.parts:
        if part.secs >= SMALL * whole:
            click.echo(_part(part))


_ENDS = (
    State.RESULT_COLLECTED,
    State.REJECTED,
    State.FAILED,
    State.CANCELLED,
    State.REUSED,
    State.SKIPPED,
)


def _part(part: Share) -> str:
    words = [OWN_WORK if part.kind is Kind.HOST else part.command]
    if part.kind is Kind.WAIT:
        words = [f"waits for {WAITS[part.name]}"]
    if part.after:
        freed = part.name == WaitFor.PLACE
        words.append(f"(freed by {part.after})" if freed else f"(until {part.after} ended)")
    if part.count > 1 and part.kind is not Kind.HOST:
        words.append(f"({part.count} times)")
    if part.failed:
        words.append("(it failed)" if part.count == 1 else f"({part.failed} failed)")
    if part.going_on:
        words.append("(goes on)")
    return f"    {part.name:16} {seconds(part.secs)}  {' '.join(word for word in words if word)}"


def _show_path(job: JobStory, columns: int) -> None:
    whole = max(job.secs, 0.001)
    steps = [
        f"{step.name} {100 * step.secs / whole:.0f} %"
        for step in job.path
        if step.kind is not Kind.HOST and step.secs >= SMALL * whole
    ]
    own = sum(step.secs for step in job.path if step.kind is Kind.HOST)
    if steps:
        words = [*(f"{step} ->" for step in steps[:-1]), f"{steps[-1]};", f"{OWN_WORK}"]
        _wrapped("  critical path: ", [*words, f"{100 * own / whole:.0f} %"], columns)
    waited = [
        f"{WAITS[share.name]}, {duration(share.secs)}"
        for share in job.waited
        if share.secs >= SMALL * whole
    ]
    if waited:
        _wrapped("  waited for: ", "; ".join(waited).split(" "), columns)


def _show_failure(job: JobStory, columns: int) -> None:
    paint = painter(_colours())
    if job.failure is not None:
        first, *rest = job.failure.message.splitlines() or [""]
        place = f"in {job.failure.phase}: " if job.failure.kind is not FailureKind.CONFIG else ""
        code = f" (exit code {job.exit_code})" if job.exit_code else ""
        colour = COLOURS[job.verdict] if job.verdict else ""
        # A file or a pipe has each on a line, for `grep`.
        width = columns if sys.stdout.isatty() else None
        for line in wrap(f"{place}{plain(first)}{code}", width, "  "):
            click.echo(paint(colour, line))
        for told in rest:
            click.echo("\n".join(wrap(plain(told), width, "    ")))
        if job.failure.resolution:
            click.echo("\n".join(wrap(f"-> {plain(job.failure.resolution)}", width, "  ")))
    known = job.failure.message if job.failure else ""
    for fault in job.faults[-FAULTS:]:
        # What a call said may be the failure itself.
        if fault.error not in known:
            click.echo(f"  {plain(fault.error)}, in attempt {fault.attempt}:")
            click.echo(f"    $ {_clip(plain(fault.command), columns - 6)}")
    if job.artifacts is None:
        return
    directory = Path(job.artifacts)
    for line in read_log_end(directory / "guest.log", lines=LOG_LINES).lines:
        click.echo(paint(DIM, "  | ") + _clip(line, columns - 4))
    kept = "" if directory.exists() else " (deleted since)"
    click.echo(f"  log and artifacts: {directory}{kept}")


def show_run(run: RunStory, *, everything: bool) -> None:
    """What happened to the jobs of a run; of many jobs those that matter, unless `everything`."""
    paint = painter(_colours())
    columns = _columns()
    count = counted(len(run.jobs), "job")
    click.echo(paint(BOLD, f"run {run.run}  {count} in {duration(run.secs)}"))
    whole = max(run.secs, 0.001)
    on_path = {link.id for link in run.path}
    shown = [
        job
        for rank, job in enumerate(
            sorted(
                run.jobs,
                key=lambda job: (job.id not in on_path, job.verdict == "passed", -job.secs),
            )
        )
        if everything or rank < JOBS
    ]
    chosen = {job.id for job in shown}
    hosts = {job.id: _on(job.host, job.member) for job in shown}
    # The names give way to the hosts, if there are any.
    room = max(8, 24 - max(map(len, hosts.values())))
    width = min(room, max(len(plain(job.name)) for job in shown))
    for job in run.jobs:
        if job.id not in chosen:
            continue
        end = job.begin + job.secs
        waits = _bar(job.begin / whole, (job.place - job.begin) / whole, ".")
        runs = _bar(job.place / whole, (end - job.place) / whole, "#")
        over = zip(waits, runs, strict=True)
        bar = "".join(work if work != " " else wait for wait, work in over)
        if job.place >= end:
            bar = waits
        mark = "*" if job.id in on_path else " "
        verdict = verdict_or_state(job.verdict, job.state).ljust(20)
        colour = COLOURS[job.verdict] if job.verdict else ""
        name = _clip(plain(job.name), width).ljust(width)
        spent = f"{paint(colour, verdict)} {seconds(job.secs)}"
        click.echo(f" {mark}{name}  {spent}  |{bar}|{hosts[job.id]}")
    if len(shown) < len(run.jobs):
        click.echo(f"  ... and {len(run.jobs) - len(shown)} more: --verbose shows them")
    click.echo(paint(DIM, "  . waits for a slot or for jobs   # runs   * on the critical path"))
    _show_run_path(run, columns)
    click.echo(paint(DIM, f"  one job: pikaci trace {run.jobs[0].id}; all jobs as a page:"))
    click.echo(paint(DIM, f"    pikaci trace export {run.run} --format html --to run.html"))


def _show_run_path(run: RunStory, columns: int) -> None:
    whole = max(run.secs, 0.001)
    steps = []
    for link in run.path:
        if link.waited >= SMALL * whole:
            who = f" after {link.foreign} of another run" if link.foreign else ""
            steps.append(f"a slot{who} {100 * link.waited / whole:.0f} %")
        steps.append(f"{plain(link.name)} {100 * link.secs / whole:.0f} %")
    if len(steps) > 12:
        steps = [*steps[:4], f"{len(steps) - 8} more", *steps[-4:]]
    words = [*(f"{step} ->" for step in steps[:-1]), steps[-1]]
    _wrapped("  critical path: ", words, columns)
    spent = sum(share.secs for share in run.together)
    most = sorted(run.together, key=lambda share: -share.secs)[:5]
    told = [
        f"{OWN_WORK if share.name == HOST else share.name} {100 * share.secs / spent:.0f} %"
        for share in most
        if spent and share.secs >= SMALL * spent
    ]
    if told:
        _wrapped("  all jobs together: ", ", ".join(told).split(" "), columns)


def _bar(begin: float, length: float, mark: str) -> str:
    first = min(BAR - 1, max(0, int(begin * BAR)))
    count = max(1, round(length * BAR)) if length > 0 else 0
    return (" " * first + mark * count)[:BAR].ljust(BAR)


def _on(host: str, member: str) -> str:
    """` on HOST`; "" for this machine."""
    return f" on {plain(place(host, member))}" if host else ""


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def _wrapped(head: str, words: Sequence[str], columns: int) -> None:
    line = head.rstrip()
    for word in words:
        if len(line) + 1 + len(word) > columns:
            click.echo(line)
            line = "   "
        line += f" {word}"
    click.echo(line)


def _columns() -> int:
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return COLUMNS
    return shutil.get_terminal_size((COLUMNS, 24)).columns


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
