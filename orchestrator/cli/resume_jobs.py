"""Resumes what dead processes left in a state root, and shows it: for `pikaci resume`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import click
import msgspec
import trio

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
from orchestrator.hosts import Hosts, open_hosts
from orchestrator.incus import LOCAL
from orchestrator.job.context import Context
from orchestrator.job.queue import Queue
from orchestrator.journal import JobRow
from orchestrator.report import run_report
from orchestrator.session import locks, reaper
from orchestrator.session.away import HostAway, once_a_host
from orchestrator.session.locks import share_root
from orchestrator.session.recovery import left, recover
from orchestrator.session.resumable import not_resumable
from orchestrator.settings import default_capacity, open_incus
from orchestrator.state_root import StateRoot
from orchestrator.terminal import plain
from orchestrator.words import job_word
from states import events as ev
from states import recorded
from states.errors import PikaciError
from states.job import Job, step
from states.outcome import EXIT_CODES, Verdict, overall


def resume_jobs(root: StateRoot, output: str) -> int:
    """Resume the jobs, show them, and return the exit code of the command."""
    code: int = trio.run(_resume, root, output)
    return code


async def _resume(root: StateRoot, output: str) -> int:
    async with open_hosts(open_incus(root=root)) as hosts:
        return await _resume_on(hosts, root, output)


async def _resume_on(hosts: Hosts, root: StateRoot, output: str) -> int:
    with existing_journal(root) as journal, share_root(root.path):
        context = Context.on(hosts, LOCAL, root=root, journal=journal)
        found = _find(context)
        view = _View(output, found.jobs)
        view.begin(context, found)
        journal.observe(view.entry)
        work = await _work(context, view)
        # With a host that is away, what needs its jobs waits, too.
        left_alone = [row.id for row in found.rows] if work.away else found.lacking
        waiting = {id for id in left_alone if not journal.ended(id)}
        rows = [row for row in (journal.find(row.id) for row in found.rows) if row is not None]
        jobs = [journal.look(row) for row in rows if row.id not in waiting]
        view.end(jobs, nothing=not jobs and not waiting)
        verdicts = [job.verdict_for_run for job in jobs]
        if work.interrupted:
            verdicts.append(Verdict.CANCELLED)
        undeleted = work.undeleted | _undeleted(context, found.theirs, waiting, work.away)
        if _print_faults(work.faults, undeleted):
            verdicts.append(Verdict.INFRASTRUCTURE)
        code = EXIT_CODES[overall(verdicts)] if verdicts else 0
        return code or (EXIT_CODES[Verdict.REJECTED] if waiting else 0)


@dataclass(frozen=True)
class _Found:
    """What there is to resume. `theirs` are the sessions of live processes, which are skipped.

    `lacking` are the jobs whose secret is missing here, and those that need them, by id.
    """

    theirs: set[str]
    rows: list[JobRow]
    jobs: list[Job]
    lacking: dict[str, PikaciError]


def _find(context: Context) -> _Found:
    directory, journal = context.root.locks, context.journal
    theirs = {name for name in left(context).sessions if locks.is_held(directory, name)}
    rows = [row for row in journal.unfinished() if locks.session_of(row.run) not in theirs]
    jobs = [journal.look(row) for row in rows]
    lacking = not_resumable([job for job in jobs if not job.damage])
    return _Found(theirs, rows, jobs, lacking)


class _View:
    """Prints what becomes of the jobs, in one of the forms of `--output`."""

    def __init__(self, output: str, jobs: Sequence[Job]) -> None:
        self.printer, self.messages = Printer(), Printer(write_stderr)
        self._output = output
        self._known = {job.id: job for job in jobs if not job.damage}

    def begin(self, context: Context, found: _Found) -> None:
        """Tell what was found, before the printers run."""
        if self._output == "human":
            for run in sorted(found.theirs):
                holder = locks.holder(context.root.locks, run)
                click.echo(f"  run {run} belongs to {holder}: skipped")
            for job in found.jobs:
                click.echo(f"  {job.id}  {plain(job.name)}  was {job_word(job)}")
        for id, error in found.lacking.items():
            print_error(PikaciError(f"{id}: {error.brief}", resolution=error.resolution))
        sys.stdout.flush()  # the printer writes past its buffer

    def entry(self, entry: ev.Entry) -> None:
        """Show a new entry of the journal."""
        if self._output == "jsonl":
            self.printer.say(json_bytes(msgspec.Raw(recorded.encode(entry))) + b"\n")
        elif self._output == "human" and isinstance(entry, ev.Event) and entry.job in self._known:
            job = self._known[entry.job] = step(self._known[entry.job], entry)
            self.printer.say(f"  {job.id}  {plain(job.name)}  {job_word(job)}\n")

    def end(self, jobs: Sequence[Job], *, nothing: bool) -> None:
        """Show how the jobs ended; `nothing`: there was no job to resume."""
        runs = dict.fromkeys(job.run for job in jobs)
        of_run = {run: [job for job in jobs if job.run == run] for run in runs}
        if self._output == "json":
            print_json([run_report(run, ended) for run, ended in of_run.items()], indent=True)
        elif self._output == "human":
            for run, ended in of_run.items():
                click.echo(f"run {run}:")
                click.echo(summary(ended, colours=colours.wanted()), nl=False)
            if nothing:
                click.echo("no job to resume")


@dataclass(frozen=True)
class _Work:
    """What came of it, apart from the jobs' verdicts. `undeleted` are names of instances."""

    faults: list[BaseException]
    undeleted: set[str]
    interrupted: bool

    @property
    def away(self) -> set[str]:
        """The hosts that did not answer: what is there is left as it is."""
        return {fault.host for fault in self.faults if isinstance(fault, HostAway)}


async def _work(context: Context, view: _View) -> _Work:
    """Resume the jobs and delete unneeded instances, until a signal; print meanwhile."""
    faults: list[BaseException] = []
    problems: dict[str, str] = {}
    with one_error():
        async with trio.open_nursery() as printing:
            await printing.start(partial(run_printers, view.printer, view.messages))
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    told = partial(view.messages.say, f"{stopping()}\n")
                    await nursery.start(cancel_on_signals, scope, context.intent, told)
                    faults = await recover(context, Queue(default_capacity(), context.limit))
                    doomed = await reaper.unneeded(context, faults.append)
                    problems = await reaper.reap(context, doomed)
                nursery.cancel_scope.cancel()
            interrupted = scope.cancelled_caught
            with trio.move_on_after(WATCHED_SECS if interrupted else inf) as drained:
                await view.printer.drain()
            printing.cancel_scope.cancel()
    if drained.cancelled_caught:
        drop(1)  # nobody reads: the rest would wait for ever
    return _Work(faults, set(problems), interrupted)


def _undeleted(context: Context, theirs: set[str], waiting: set[str], away: set[str]) -> set[str]:
    return {
        lease.instance
        for session, leases in left(context).leases.items()
        for lease in leases
        if session not in theirs and lease.job not in waiting and lease.host not in away
    }


def _print_faults(faults: Sequence[BaseException], undeleted: Collection[str]) -> bool:
    """Print what went wrong apart from the jobs; whether anything did."""
    for fault in once_a_host(faults):
        print_error(fault if isinstance(fault, PikaciError) else PikaciError(str(fault)))
    if undeleted:
        print_error(
            PikaciError(
                f"possibly not deleted: {', '.join(sorted(undeleted))}",
                resolution="`pikaci reap` tries again; `pikaci trace JOB` shows what happened",
            )
        )
    return bool(faults or undeleted)
