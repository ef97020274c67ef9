"""`pikaci trace`: what happened to a job, and when; to read, to draw, to replay, to compare."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.group import Group
from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.cli.usage import OneOf
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.journal import JobRow, JournalReader
    from orchestrator.silence import Silence
    from orchestrator.state_root import StateRoot
    from states.events import Connected, Entry
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
    """Show what happened to a job or a run, and where its time went.

    \b
    pikaci trace [RUN|JOB]             its states, and where its time went
    pikaci trace JOB --verbose         every event, note and incus command
    pikaci trace export JOB|RUN        as JSON lines; --format html draws it
    pikaci trace replay FILE           check a trace against today's table of states
    pikaci trace diff JOB|FILE JOB|FILE
    """


def with_root(command: Callable[..., int]) -> Callable[..., int]:
    """The options that name the state root."""
    return workspace_option(state_root_option(command))


@command.command("show")
@click.argument("run_or_job", required=False, shell_complete=jobs_and_runs)
@with_root
@click.option("-v", "--verbose", is_flag=True, help="Show every event, note and incus command.")
@output_option
@click.option("--json", "as_json", is_flag=True, help="Same as --output json.")
def show(
    run_or_job: str | None,
    workspace: Path | None,
    state_root: Path | None,
    verbose: bool,
    output: str,
    as_json: bool,
) -> int:
    """Show where the time of a job went, what it waited for, and why it did not pass.

    For a run with several jobs: a bar for each job, and which job waited for which. Default: the
    newest run. `--output jsonl` prints one line per job.

    Exit codes: 0 done, 4 a job cannot be read.
    """
    from orchestrator.cli.find import find_jobs, read_existing_journal
    from orchestrator.cli.output import print_items
    from orchestrator.cli.trace_read import read_each, timeline_of
    from orchestrator.cli.trace_show import show_job, show_run
    from orchestrator.tracing.story import JobStory, RunStory, job_story, run_story
    from orchestrator.tracing.timeline import describe_warm
    from orchestrator.usage_words import usage_lines
    from orchestrator.words import case_lines, describe_flake, output_lines

    output = "json" if as_json else output
    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        rows = find_jobs(journal, run_or_job)
        if verbose and len(rows) == 1 and output == "human":
            _show_entries(journal, root, rows[0])
            return 0
        moment = datetime.now(UTC)
        jobs, code = read_each(
            [row.id for row in rows],
            lambda job: timeline_of(journal, root.journal, job, until=moment),
        )
        flake = describe_flake(journal.look(rows[0])) if len(rows) == 1 else ""
    story: JobStory | RunStory
    if len(rows) == 1:
        story = job_story(jobs[0], silence=_silence(root, jobs[0].job, moment))
    else:
        story = run_story(jobs)
    if print_items(output, [story] if isinstance(story, JobStory) else story.jobs, story):
        return code
    if isinstance(story, JobStory):
        holder = "" if story.verdict else _holder(root, story.run)
        job = jobs[0].job
        warm = describe_warm(job.warm_ms)
        told = [*([warm] if warm else []), *output_lines(job, jobs[0].missing)]
        told += case_lines(job.tests)
        told += [*usage_lines(job), *([flake] if flake else [])]
        show_job(story, holder=holder, told=told)
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
        return f"not ended: {locks.holder(root.locks, run)} runs it"
    return "not ended, and no process runs it: `pikaci resume` resumes it"


def _show_entries(journal: JournalReader, root: StateRoot, row: JobRow) -> None:
    from orchestrator.cli.trace_read import entries_of
    from orchestrator.terminal import plain
    from orchestrator.units import seconds

    entries = entries_of(journal, root.journal, row.id)
    click.echo(f"{row.id} {plain(row.name)}, run {row.run}")
    first = entries[0].monotonic
    for entry in entries:
        click.echo(f"{seconds(entry.monotonic - first)}  {plain(_described(entry))}")


@command.command("export")
@click.argument("run_or_job", required=False, shell_complete=jobs_and_runs)
@with_root
@click.option(
    "--format",
    "form",
    type=OneOf(FORMATS),
    default="jsonl",
    show_default=True,
    help="jsonl: for replay; perfetto: for trace viewers; html: a page; mermaid: a diagram;"
    " otlp: JSON for tracing backends.",
)
@click.option("--to", type=click.Path(path_type=Path), help="Write to this file. Default: stdout.")
# Elsewhere this option names a form; the name is kept for those who use it.
@click.option("--output", "old_to", type=click.Path(path_type=Path), hidden=True)
def export(
    run_or_job: str | None,
    workspace: Path | None,
    state_root: Path | None,
    form: str,
    to: Path | None,
    old_to: Path | None,
) -> int:
    """Write the trace of a job, or of all jobs of a run. Default: the newest run.

    Exit codes: 0 done, 4 a job of the run cannot be read and was left out.
    """
    from orchestrator.cli.find import find_jobs, read_existing_journal

    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        rows = find_jobs(journal, run_or_job)
        data, code = _exported(journal, root, [row.id for row in rows], form)
    file = to or old_to
    if file is None:
        from orchestrator.cli.output import print_document

        print_document(data)
        return code
    try:
        file.write_bytes(data)
    except OSError as error:
        raise UsageError(
            f"--to {file} cannot be written: {error.strerror}",
            resolution="name a file that you can write",
        ) from None
    return code


def _exported(
    journal: JournalReader, root: StateRoot, jobs: list[str], form: str
) -> tuple[bytes, int]:
    from importlib import import_module

    from orchestrator.cli.trace_read import read_each, timeline_of
    from states import trace

    if form == "jsonl":
        traces, code = read_each(jobs, lambda job: trace.join(job, _bodies(journal, job)))
        return b"".join(traces), code
    lines, code = read_each(jobs, lambda job: timeline_of(journal, root.journal, job))
    data: bytes
    if form == "perfetto":
        from orchestrator.tracing.perfetto import perfetto
        from orchestrator.usage_samples import read_samples

        logs = {line.id: Path(line.job.artifacts) for line in lines if line.job.artifacts}
        samples = {job: read_samples(path / "guest.log") for job, path in logs.items()}
        data = perfetto(lines, samples)
    else:
        data = getattr(import_module(f"orchestrator.tracing.{form}"), form)(lines)
    return data, code


def _bodies(journal: JournalReader, job: str) -> list[bytes]:
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
@output_option
def replay(file: Path, output: str) -> int:
    """Check the traces in a file against today's table of states. Needs no Incus.

    Exit codes: 0 all traces agree with the table, 1 an event is illegal, missing, repeated or from
    another job, or the file is incomplete.
    """
    from orchestrator.cli.documents import ReplayedTrace
    from orchestrator.cli.ending import print_error
    from orchestrator.cli.output import print_items
    from orchestrator.cli.trace_compare import read_trace
    from orchestrator.terminal import plain
    from orchestrator.words import VERDICTS
    from states import trace
    from states.errors import TraceError

    replayed: list[ReplayedTrace] = []
    for line, data in trace.split(read_trace(file)):
        try:
            job = trace.replay(data, line=line)
        except TraceError as error:
            replayed.append(ReplayedTrace(problem=error.brief))
            print_error(TraceError(f"{file}: {error.brief}", resolution=error.resolution))
            continue
        states = tuple(phase.state for phase in job.phases)
        replayed.append(ReplayedTrace(id=job.id, name=job.name, path=states, verdict=job.verdict))
        if output != "human":
            continue
        verdict = VERDICTS[job.verdict] if job.verdict else "not ended"
        path = " -> ".join(states)
        click.echo(f"{plain(job.id)} {plain(job.name)}: as recorded: {path}: {verdict}")
        if job.verdict is None:
            click.echo("  the trace was exported before its job had ended")
    print_items(output, replayed)
    return 1 if any(one.problem for one in replayed) else 0


@command.command("diff")
@click.argument("one", shell_complete=jobs_and_runs)
@click.argument("other", required=False, shell_complete=jobs_and_runs)
@with_root
@output_option
def diff(
    one: str, other: str | None, workspace: Path | None, state_root: Path | None, output: str
) -> int:
    """Compare two jobs or trace files: outcome, inputs, tests, path, and times.

    With one job: compare it with the last job of the same name that passed before it.

    Exit codes: 0 no notable difference, 1 a notable difference, 2 one of them does not exist.
    """
    from orchestrator.cli.output import print_items
    from orchestrator.cli.trace_compare import compare, difference_report
    from orchestrator.cli.trace_diff import show_difference

    compared = compare(state_root_of(real_workspace(workspace), state_root), one, other)
    report = difference_report(compared)
    if not print_items(output, report.rows, report):
        show_difference(compared)
    return 1 if report.notable else 0


def _connection(entry: Connected) -> str:
    from orchestrator.units import duration, size
    from states.egress import authority

    what = authority(entry.host, entry.port) if entry.host else "no request"
    if entry.count > 1:
        what = f"{entry.count} connections to {what}"
    if entry.refused:
        return f"refused: {what}: {entry.reason}"
    where = f" ({entry.address})" if entry.address not in ("", entry.host) else ""
    through = f" through the host's proxy {entry.proxy}, by name only" if entry.proxy else ""
    why = f": {entry.reason}" if entry.reason else ""
    return (
        f"connected: {what}{where}{through}  [{duration(entry.duration_ms / 1000)},"
        f" {size(entry.sent_bytes)} out, {size(entry.received_bytes)} in]{why}"
    )


def _described(entry: Entry) -> str:
    from orchestrator.terminal import first_line
    from orchestrator.tracing.timeline import describe_guest
    from orchestrator.units import duration
    from states import events as ev

    match entry:
        case ev.Called():
            argv = shlex.join(word if len(word) <= 80 else f"{word[:40]}..." for word in entry.argv)
            code = "cut off" if entry.exit_code is None else f"exit {entry.exit_code}"
            return f"    $ {argv}  [{duration(entry.duration_ms / 1000)}, {code}]"
        case ev.LeaseOpened() | ev.LeaseEnded():
            return f"    {ev.tag(type(entry))} {entry.instance}"
        case ev.LeaseClaimed():
            return f"    lease_claimed {entry.instance}: a warm guest"
        case ev.LeaseKept():
            return f"    lease_kept {entry.instance} until {entry.deadline.isoformat()}"
        case ev.Waited():
            freed = entry.what is ev.WaitFor.PLACE
            after = f"freed by {entry.after}" if freed else f"until {entry.after} ended"
            made_way = f" ({after})" if entry.after else ""
            took = duration(entry.duration_ms / 1000)
            return f"    waited for: {entry.what.value}{made_way}  [{took}]"
        case ev.Warned():
            return f"    warning: {entry.message}"
        case ev.Connected():
            return f"    {_connection(entry)}"
        case ev.EgressGap():
            took = duration(entry.duration_ms / 1000) if entry.known else "an unknown time"
            return f"    no egress for {took}: {entry.cut} connections cut, {entry.late} timed out"
        case ev.OutputMissing():
            why = f": {entry.reason}" if entry.reason else ""
            return f"    no output can be reused{why}  [key {entry.key[:12]}]"
        case ev.Reused():
            return f"reused: output {entry.output.key[:12]}, made by {entry.output.job}"
        case ev.ArtifactsReset() if entry.inputs or entry.host:
            used = ", ".join(f"{name} of {one.job}" for name, one in entry.inputs.items())
            on = f"on the host {entry.host}" if entry.host else ""
            return f"artifacts_reset: {'; '.join(filter(None, (on, used and f'uses {used}')))}"
        case ev.DevicesConfigured() if about := describe_guest(entry):
            return f"devices_configured: {about}"
        case ev.UnknownNote():
            return f"    {entry.kind}: only a newer pikaci can read it"
        case ev.ResultCollected():
            why = f": {entry.reason}" if entry.reason else ""
            return f"result_collected: {entry.message}{why}"
        case ev.Failed() | ev.Cancelled() | ev.Rejected() | ev.Retried() | ev.Lost() | ev.Skipped():
            return f"{ev.tag(type(entry))}: {first_line(entry.failure.message)}"
        case _:
            return ev.tag(type(entry))
