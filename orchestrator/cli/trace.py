"""`pikaci trace`: what happened to a job, and when; to read, to draw, to replay, to compare."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.journal import Journal
    from orchestrator.settings import StateRoot
    from orchestrator.tracing.timeline import Timeline
    from states.events import Entry

FORMATS = ("jsonl", "perfetto", "html", "mermaid", "otlp")
SLOWEST = 3
BAR = 24


class TraceCommand(click.Group):
    """`trace JOB` shows it; `export`, `replay` and `diff` are commands of their own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group("trace", cls=TraceCommand)
def command() -> None:
    """Show what happened to a job, and when.

    \b
    pikaci trace [JOB]                 its states, and where the time went
    pikaci trace JOB --verbose         every event, note and incus command
    pikaci trace export JOB|RUN        as JSON lines, or drawn: --format html
    pikaci trace replay FILE           a trace through today's table
    pikaci trace diff JOB|FILE JOB|FILE
    """


def with_root(command: Callable[..., int]) -> Callable[..., int]:
    """The options that say which state root."""
    return workspace_option(state_root_option(command))


@command.command("show")
@click.argument("job", required=False)
@with_root
@click.option("--verbose", "-v", is_flag=True, help="Every event, note and incus command.")
@click.option("--json", "as_json", is_flag=True, help="Print the trace itself, as JSON lines.")
def show(
    job: str | None, workspace: Path | None, state_root: Path | None, verbose: bool, as_json: bool
) -> int:
    """Show the states that a job passed, with the time in each.

    JOB is a job's id or name; the newest run's only job when not given.
    """
    from orchestrator.cli.find import existing_journal, find_job
    from orchestrator.tracing.timeline import timeline
    from states import trace

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        row = find_job(journal, job)
        entries = [entry for _, entry in journal.entries(row.id)]
    if as_json:
        sys.stdout.buffer.write(trace.encode(row.id, entries))
        return 0
    if verbose:
        click.echo(f"{row.id} {row.name}, run {row.run}")
        first = entries[0].monotonic
        for entry in entries:
            click.echo(f"{entry.monotonic - first:10.3f} s  {_described(entry)}")
        return 0
    _show(timeline(entries))
    return 0


def _show(job: Timeline) -> None:
    """States as bars, the slowest calls, and why it did not pass."""
    from orchestrator.terminal import plain

    whole = max((job.end - job.begin).total_seconds(), 0.001)
    click.echo(f"{job.id} {plain(job.name)}, run {job.run}")
    attempt = 1
    for span in job.states:
        if span.attempt != attempt:
            attempt = span.attempt
            click.echo(f"  attempt {attempt}")
        offset = (span.begin - job.begin).total_seconds() / whole
        begin = min(BAR - 1, int(offset * BAR))
        length = max(1, round(span.secs / whole * BAR))
        bar = (" " * begin + "#" * length)[:BAR].ljust(BAR)
        told = plain(span.detail)[:100]
        click.echo(f"  {span.name:18} {span.secs:9.3f} s  |{bar}|  {told}".rstrip())
    slowest = sorted(job.calls, key=lambda call: -call.secs)[:SLOWEST]
    if slowest:
        spent = sum(call.secs for call in job.calls)
        click.echo(f"  {len(job.calls)} incus commands, {spent:.3f} s; the slowest:")
    for call in slowest:
        failed = "" if call.ok else "  (it failed)"
        click.echo(f"    {call.secs:9.3f} s  {call.name} (attempt {call.attempt}){failed}")
    if job.failure is not None:
        for line in job.failure.message.splitlines():
            click.echo(f"  {plain(line)}")
        if job.failure.resolution:
            click.echo(f"  -> {plain(job.failure.resolution)}")
    click.echo(f"  all of it: pikaci trace {job.id} --verbose; its log: pikaci logs {job.id}")


@command.command("export")
@click.argument("run_or_job", required=False)
@with_root
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
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
    """Write the trace of a job, or of all jobs of a run (the newest when none is named)."""
    from orchestrator.cli.find import existing_journal, find_jobs

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        data = _exported(journal, [row.id for row in find_jobs(journal, run_or_job)], form)
    if output is None:
        sys.stdout.buffer.write(data)
        return 0
    try:
        output.write_bytes(data)
    except OSError as error:
        raise UsageError(
            f"--output {output} cannot be written: {error.strerror}",
            resolution="name a file in a directory of yours",
        ) from None
    return 0


def _exported(journal: Journal, jobs: list[str], form: str) -> bytes:
    from importlib import import_module

    from orchestrator.tracing.timeline import timeline
    from states import trace

    if form == "jsonl":
        return b"".join(
            trace.encode(job, [entry for _, entry in journal.entries(job)]) for job in jobs
        )
    draw = getattr(import_module(f"orchestrator.tracing.{form}"), form)
    data: bytes = draw([timeline(entry for _, entry in journal.entries(job)) for job in jobs])
    return data


@command.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
def replay(file: Path) -> int:
    """Fold the traces of a file by today's table, without Incus; say what comes of each job.

    Exit code 1, and where and why, when an event is not legal, is missing, comes twice, or is
    another job's.
    """
    from orchestrator.terminal import plain
    from states import trace
    from states.errors import TraceError

    problems = 0
    for data in trace.split(_read(file)):
        try:
            job = trace.replay(data)
        except TraceError as error:
            problems += 1
            click.echo(f"{file}: {plain(error.brief)}", err=True)
            continue
        path = " -> ".join(phase.state.value for phase in job.phases)
        verdict = job.verdict.value if job.verdict else "not ended"
        click.echo(f"{plain(job.id)} {plain(job.name)}: {path}: {verdict}")
    return 1 if problems else 0


@command.command("diff")
@click.argument("one")
@click.argument("other")
@with_root
def diff(one: str, other: str, workspace: Path | None, state_root: Path | None) -> int:
    """Compare two jobs, or trace files: path, outcome, and what took longer.

    Exit code 0 when nothing notable is different, else 1.
    """
    from orchestrator.terminal import plain
    from orchestrator.tracing.difference import difference

    root = state_root_of(real_workspace(workspace), state_root)
    lines = difference(_timeline(root, one), _timeline(root, other))
    for line in lines:
        click.echo(plain(line))
    return 1 if lines else 0


def _timeline(root: StateRoot, word: str) -> Timeline:
    from orchestrator.cli.find import existing_journal, find_job
    from orchestrator.tracing.timeline import timeline
    from states import trace

    if Path(word).is_file():
        return timeline(trace.decode(next(iter(trace.split(_read(Path(word)))), b"")))
    with existing_journal(root, only_reading=True) as journal:
        row = find_job(journal, word)
        return timeline(entry for _, entry in journal.entries(row.id))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read: {error.strerror}", resolution="name a file of `trace export`"
        ) from None


def _described(entry: Entry) -> str:
    from orchestrator.terminal import plain
    from states import events as ev

    match entry:
        case ev.Called():
            argv = plain(
                shlex.join(word if len(word) <= 80 else f"{word[:40]}..." for word in entry.argv)
            )
            code = "cut off" if entry.exit_code is None else f"exit {entry.exit_code}"
            return f"    $ {argv}  [{entry.duration_ms:.0f} ms, {code}]"
        case ev.LeaseOpened() | ev.LeaseEnded():
            return f"    {ev.tag(type(entry))} {entry.instance}"
        case ev.LeaseKept():
            return f"    lease_kept {entry.instance} until {entry.deadline.isoformat()}"
        case ev.Warned():
            return f"    warning: {plain(entry.message)}"
        case ev.ResultCollected():
            return f"result_collected: {plain(entry.message)}"
        case ev.Failed() | ev.Cancelled() | ev.Rejected() | ev.Retried():
            first = entry.failure.message.splitlines()[0]
            return f"{ev.tag(type(entry))}: {plain(first)}"
        case _:
            return ev.tag(type(entry))
