"""`pikaci resume`: resumes jobs of dead processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

if TYPE_CHECKING:
    from orchestrator.job.context import Context
    from orchestrator.state_root import StateRoot


@click.command("resume")
@workspace_option
@state_root_option
@output_option
def command(workspace: Path | None, state_root: Path | None, output: str) -> int:
    """Resume the jobs of dead pikaci processes, and wait until they end.

    A running job is followed to its end, a finished one's result is collected, and a half-created
    guest is created again. Unneeded instances are deleted.

    A job that has not started and whose secret is missing here is reported and left as it is.

    The exit codes are those of `pikaci run` for the same jobs. 0 also if there are no such jobs,
    2 if all others passed and some lack a secret.
    """
    import trio

    return trio.run(_resume, state_root_of(real_workspace(workspace), state_root), output)


def _undeleted(context: Context, theirs: set[str], waiting: set[str]) -> set[str]:
    from orchestrator.session.recovery import left

    return {
        lease.instance
        for session, leases in left(context).leases.items()
        for lease in leases
        if session not in theirs and lease.job not in waiting
    }


async def _resume(root: StateRoot, output: str) -> int:
    import sys
    from functools import partial
    from math import inf

    import msgspec
    import trio

    from orchestrator.attempt.id_map import local_id_range
    from orchestrator.attempt.plan import Host
    from orchestrator.cli import colours
    from orchestrator.cli.ending import print_error
    from orchestrator.cli.find import existing_journal
    from orchestrator.cli.output import json_bytes, print_json
    from orchestrator.cli.printer import Printer, run_printers, write_stderr
    from orchestrator.cli.signals import cancel_on_signals, stopping
    from orchestrator.cli.streams import drop
    from orchestrator.cli.summary import summary
    from orchestrator.engine import WATCHED_SECS
    from orchestrator.errors import one_error
    from orchestrator.incus.errors import IncusError
    from orchestrator.job.context import Context
    from orchestrator.job.queue import Queue
    from orchestrator.report import run_report
    from orchestrator.session import locks, reaper
    from orchestrator.session.locks import share_root
    from orchestrator.session.recovery import left, missing_secret, recover
    from orchestrator.settings import default_capacity, open_incus
    from orchestrator.terminal import plain
    from orchestrator.words import job_word
    from states import events as ev
    from states import recorded
    from states.errors import PikaciError
    from states.job import step
    from states.outcome import EXIT_CODES, Verdict, overall

    with existing_journal(root) as journal, share_root(root.path):
        context = Context(
            root=root, journal=journal, incus=open_incus(), ids=local_id_range(Host().remote)
        )
        found = left(context)
        theirs = {name for name in found.sessions if locks.is_held(root.locks, name)}
        rows = [row for row in journal.unfinished() if locks.session_of(row.run) not in theirs]
        jobs = [journal.look(row) for row in rows]

        known = {job.id: job for job in jobs if not job.damage}
        printer, messages = Printer(), Printer(write_stderr)

        def show(entry: ev.Entry) -> None:
            if output == "jsonl":
                printer.say(json_bytes(msgspec.Raw(recorded.encode(entry))) + b"\n")
            elif output == "human" and isinstance(entry, ev.Event) and entry.job in known:
                job = known[entry.job] = step(known[entry.job], entry)
                printer.say(f"  {job.id}  {plain(job.name)}  {job_word(job)}\n")

        if output == "human":
            for run in sorted(theirs):
                click.echo(f"  run {run} belongs to {locks.holder(root.locks, run)}: skipped")
            for job in jobs:
                click.echo(f"  {job.id}  {plain(job.name)}  was {job_word(job)}")
        lacking = {job.id: error for job in jobs if (error := missing_secret(job))}
        for id, error in lacking.items():
            print_error(PikaciError(f"{id}: {error.brief}", resolution=error.resolution))
        journal.observe(show)
        faults: list[BaseException] = []
        problems: dict[str, str] = {}
        sys.stdout.flush()  # the printer writes past its buffer
        with one_error():
            async with trio.open_nursery() as printing:
                await printing.start(partial(run_printers, printer, messages))
                async with trio.open_nursery() as nursery:
                    with trio.CancelScope() as scope:
                        told = partial(messages.say, f"{stopping()}\n")
                        await nursery.start(cancel_on_signals, scope, context.intent, told)
                        faults = await recover(context, Queue(default_capacity()))
                        try:
                            problems = await reaper.reap(context, await reaper.unneeded(context))
                        except IncusError as error:
                            faults.append(error)
                    nursery.cancel_scope.cancel()
                with trio.move_on_after(WATCHED_SECS if scope.cancelled_caught else inf) as drained:
                    await printer.drain()
                printing.cancel_scope.cancel()
        if drained.cancelled_caught:
            drop(1)  # nobody reads: the rest would wait for ever
        waiting = {id for id in lacking if not journal.ended(id)}
        rows = [row for row in map(journal.find, (row.id for row in rows)) if row is not None]
        jobs = [journal.look(row) for row in rows if row.id not in waiting]
        runs = dict.fromkeys(job.run for job in jobs)
        reports = [run_report(run, [job for job in jobs if job.run == run]) for run in runs]
        if output == "json":
            print_json(reports, indent=True)
        elif output == "human":
            for report in reports:
                click.echo(f"run {report.run}:")
                ended = [job for job in jobs if job.run == report.run]
                click.echo(summary(ended, colours=colours.wanted()), nl=False)
            if not reports and not waiting:
                click.echo("no job to resume")
        verdicts = [job.verdict for job in jobs]
        if scope.cancelled_caught:
            verdicts.append(Verdict.CANCELLED)
        for fault in faults:
            verdicts.append(Verdict.INFRASTRUCTURE)
            print_error(fault if isinstance(fault, PikaciError) else PikaciError(str(fault)))
        if undeleted := problems.keys() | _undeleted(context, theirs, waiting):
            verdicts.append(Verdict.INFRASTRUCTURE)
            print_error(
                PikaciError(
                    f"possibly not deleted: {', '.join(sorted(undeleted))}",
                    resolution="`pikaci reap` tries again; `pikaci trace JOB` shows what happened",
                )
            )
        code = EXIT_CODES[overall(verdicts)] if verdicts else 0
        return code or (EXIT_CODES[Verdict.REJECTED] if waiting else 0)
