"""`pikaci trace`: what happened to a job, and when; to read, to draw, to replay, to compare."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.group import Group
from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.cli.usage import OneOf
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.journal import JobRow, Journal
    from orchestrator.silence import Silence
    from orchestrator.state_root import StateRoot
    from orchestrator.tracing.timeline import Timeline
    from states.events import Entry
    from states.job import Job

FORMATS = ("jsonl", "perfetto", "html", "mermaid", "otlp")


class TraceCommand(Group):
    """`trace JOB` shows it; `export`, `replay` and `diff` are commands of their own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group("trace", cls=TraceCommand)
def command() -> None:
    """Show what happened to a job or a run, and when.

    \b
    pikaci trace [RUN|JOB]             its states, and where the time went
    pikaci trace JOB --verbose         every event, note and incus command
    pikaci trace export JOB|RUN        as JSON lines, or drawn: --format html
    pikaci trace replay FILE           a trace through today's table
    pikaci trace diff JOB|FILE JOB|FILE
    """


def with_root(command: Callable[..., int]) -> Callable[..., int]:
    """The options that say which state root."""
    return workspace_option(state_root_option(command))


@command.command("show")
@click.argument("run_or_job", required=False)
@with_root
@click.option("--verbose", "-v", is_flag=True, help="Every event, note and incus command.")
@click.option("--json", "as_json", is_flag=True, help="What is shown, as a JSON document.")
def show(
    run_or_job: str | None,
    workspace: Path | None,
    state_root: Path | None,
    verbose: bool,
    as_json: bool,
) -> int:
    """Show where the time of a job went, what it waited for, and why it did not pass.

    Of a run with several jobs: each as a bar, and who kept whom waiting. The newest run when
    none is named. Exit code 4 when a job of it cannot be read.
    """
    from orchestrator.cli.find import existing_journal, find_jobs
    from orchestrator.cli.output import print_json
    from orchestrator.cli.trace_read import read_each, timeline_of
    from orchestrator.cli.trace_show import show_job, show_run
    from orchestrator.tracing.story import JobStory, RunStory, job_story, run_story

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        rows = find_jobs(journal, run_or_job)
        if verbose and len(rows) == 1 and not as_json:
            _show_entries(journal, root, rows[0])
            return 0
        moment = datetime.now(UTC)
        jobs, code = read_each(
            [row.id for row in rows],
            lambda job: timeline_of(journal, root.journal, job, until=moment),
        )
    story: JobStory | RunStory
    if len(rows) == 1:
        story = job_story(jobs[0], silence=_silence(root, jobs[0].job, moment))
    else:
        story = run_story(jobs)
    if as_json:
        print_json(story, indent=True)
    elif isinstance(story, JobStory):
        show_job(story, holder="" if story.verdict else _holder(root, story.run))
    else:
        show_run(story, everything=verbose)
    return code


def _silence(root: StateRoot, job: Job, now: datetime) -> Silence | None:
    from orchestrator.session import locks
    from orchestrator.silence import longest_silence

    if job.artifacts is None:
        return None
    # A job that nobody has may print what nobody hears.
    followed = not job.ended and locks.is_held(root.locks, job.run)
    return longest_silence(Path(job.artifacts) / "guest.log", until=now if followed else None)


def _holder(root: StateRoot, run: str) -> str:
    from orchestrator.session import locks

    if locks.is_held(root.locks, run):
        return f"it goes on: {locks.holder(root.locks, run)} has it"
    return "nobody has it: `pikaci resume` goes on with it"


def _show_entries(journal: Journal, root: StateRoot, row: JobRow) -> None:
    from orchestrator.cli.trace_read import entries_of
    from orchestrator.terminal import plain
    from orchestrator.units import seconds

    entries = entries_of(journal, root.journal, row.id)
    click.echo(f"{row.id} {plain(row.name)}, run {row.run}")
    first = entries[0].monotonic
    for entry in entries:
        click.echo(f"{seconds(entry.monotonic - first)}  {plain(_described(entry))}")


@command.command("export")
@click.argument("run_or_job", required=False)
@with_root
@click.option(
    "--format",
    "form",
    type=OneOf(FORMATS),
    default="jsonl",
    show_default=True,
    help="jsonl: to replay; perfetto: for trace viewers; html: one page; mermaid; otlp: JSON.",
)
@click.option("--output", type=click.Path(path_type=Path), help="A file; stdout when not given.")
def export(
    run_or_job: str | None,
    workspace: Path | None,
    state_root: Path | None,
    form: str,
    output: Path | None,
) -> int:
    """Write the trace of a job, or of all jobs of a run (the newest when none is named).

    Exit code 4 when a job of the run cannot be read, and is not in it.
    """
    from orchestrator.cli.find import existing_journal, find_jobs

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        rows = find_jobs(journal, run_or_job)
        data, code = _exported(journal, root, [row.id for row in rows], form)
    if output is None:
        from orchestrator.cli.output import print_document

        print_document(data)
        return code
    try:
        output.write_bytes(data)
    except OSError as error:
        raise UsageError(
            f"--output {output} cannot be written: {error.strerror}",
            resolution="name a file in a directory of yours",
        ) from None
    return code


def _exported(journal: Journal, root: StateRoot, jobs: list[str], form: str) -> tuple[bytes, int]:
    from importlib import import_module

    from orchestrator.cli.trace_read import read_each, timeline_of
    from states import trace

    if form == "jsonl":
        traces, code = read_each(jobs, lambda job: trace.join(job, _bodies(journal, job)))
        return b"".join(traces), code
    draw = getattr(import_module(f"orchestrator.tracing.{form}"), form)
    lines, code = read_each(jobs, lambda job: timeline_of(journal, root.journal, job))
    data: bytes = draw(lines)
    return data, code


def _bodies(journal: Journal, job: str) -> list[bytes]:
    """A job's entries as they are stored, also when only a newer pikaci can read one of them."""
    from orchestrator.journal import JobUnreadable

    try:
        journal.entries(job)
    except JobUnreadable as error:
        if not error.newer:
            raise
    return [body for _, body in journal.bodies(job)]


@command.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
def replay(file: Path) -> int:
    """Fold the traces of a file by today's table, without Incus; say what comes of each job.

    Exit code 1, and where and why, when an event is not legal, is missing, comes twice, or is
    another job's, and when the file is no whole trace.
    """
    from orchestrator.cli.ending import print_error
    from orchestrator.terminal import plain
    from orchestrator.words import VERDICTS
    from states import trace
    from states.errors import TraceError

    problems = 0
    for line, data in trace.split(_read(file)):
        try:
            job = trace.replay(data, line=line)
        except TraceError as error:
            problems += 1
            print_error(TraceError(f"{file}: {error.brief}", resolution=error.resolution))
            continue
        path = " -> ".join(phase.state.value for phase in job.phases)
        verdict = VERDICTS[job.verdict] if job.verdict else "not ended"
        click.echo(f"{plain(job.id)} {plain(job.name)}: as recorded: {path}: {verdict}")
        if job.verdict is None:
            click.echo("  the trace ends before its job did: it was exported while the job lived")
    return 1 if problems else 0


@command.command("diff")
@click.argument("one")
@click.argument("other")
@with_root
def diff(one: str, other: str, workspace: Path | None, state_root: Path | None) -> int:
    """Compare two jobs, or trace files, side by side: path, outcome, and what took longer.

    Exit code 0 when nothing notable is different, 1 when something is, 2 when one of them is
    not there.
    """
    from orchestrator.cli.trace_diff import show_difference
    from orchestrator.tracing.difference import difference

    root = state_root_of(real_workspace(workspace), state_root)
    found = difference(_timeline(root, one), _timeline(root, other))
    show_difference(found)
    return 1 if found.notable else 0


def _timeline(root: StateRoot, word: str) -> Timeline:
    from orchestrator.cli.find import existing_journal, find_job
    from orchestrator.cli.trace_read import timeline_of
    from orchestrator.tracing.timeline import timeline
    from states import trace
    from states.errors import TraceError

    if os.path.lexists(word):
        first, *others = trace.split(_read(Path(word)))
        if others:
            raise UsageError(
                f"{word} has {len(others) + 1} traces, and one is compared with one",
                resolution="`pikaci trace export JOB` writes one",
            )
        try:
            trace.replay(first[1])
        except TraceError as error:
            raise UsageError(f"{word}: {error.brief}", resolution=error.resolution) from None
        return timeline(trace.decode(first[1]))
    with existing_journal(root, only_reading=True) as journal:
        row = find_job(journal, word)
        return timeline_of(journal, root.journal, row.id)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {error.strerror}", resolution="name a file of `trace export`"
        ) from None


def _described(entry: Entry) -> str:
    from orchestrator.terminal import first_line
    from orchestrator.units import duration
    from states import events as ev

    match entry:
        case ev.Called():
            argv = shlex.join(word if len(word) <= 80 else f"{word[:40]}..." for word in entry.argv)
            code = "cut off" if entry.exit_code is None else f"exit {entry.exit_code}"
            return f"    $ {argv}  [{duration(entry.duration_ms / 1000)}, {code}]"
        case ev.LeaseOpened() | ev.LeaseEnded():
            return f"    {ev.tag(type(entry))} {entry.instance}"
        case ev.LeaseKept():
            return f"    lease_kept {entry.instance} until {entry.deadline.isoformat()}"
        case ev.Waited():
            made_way = f" ({entry.after} made way)" if entry.after else ""
            took = duration(entry.duration_ms / 1000)
            return f"    waited for: {entry.what.value}{made_way}  [{took}]"
        case ev.Warned():
            return f"    warning: {entry.message}"
        case ev.UnknownNote():
            return f"    {entry.kind}: a newer pikaci can read it"
        case ev.ResultCollected():
            return f"result_collected: {entry.message}"
        case ev.Failed() | ev.Cancelled() | ev.Rejected() | ev.Retried():
            return f"{ev.tag(type(entry))}: {first_line(entry.failure.message)}"
        case _:
            return ev.tag(type(entry))
