"""`pikaci reap`: deletes unneeded instances."""

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
    from orchestrator.state_root import StateRoot


@click.command("reap")
@click.option("-n", "--dry-run", is_flag=True, help="List what would be deleted. Delete nothing.")
@click.option(
    "--expired",
    is_flag=True,
    help="Delete expired instances of all state roots, for example after one was lost.",
)
@workspace_option
@state_root_option
@output_option
def command(
    dry_run: bool, expired: bool, workspace: Path | None, state_root: Path | None, output: str
) -> int:
    """Delete the instances of this state root that no unfinished job needs.

    If a dead process left a job that is past its deadline, the job is ended first, so that its log
    and result are kept. Instances of other state roots are deleted only with --expired.

    Exit codes: 0 done, 4 something could not be deleted.
    """
    import trio

    root = state_root_of(real_workspace(workspace), state_root)
    return trio.run(_reap, root, dry_run, expired, output)


async def _reap(root: StateRoot, dry_run: bool, expired: bool, output: str) -> int:
    from orchestrator.cli.documents import ReapedInstance, ReapReport
    from orchestrator.cli.ending import print_error
    from orchestrator.cli.output import print_items
    from orchestrator.hosts import open_hosts
    from orchestrator.incus import LOCAL
    from orchestrator.job.context import Context
    from orchestrator.job.queue import Queue
    from orchestrator.journal import open_journal
    from orchestrator.session import reaper
    from orchestrator.session.away import once_a_host
    from orchestrator.session.locks import share_root
    from orchestrator.session.recovery import overdue, recover
    from orchestrator.settings import default_capacity, open_incus
    from orchestrator.terminal import plain
    from orchestrator.units import counted
    from states.errors import PikaciError
    from states.outcome import EXIT_CODES, Verdict

    root.make()
    async with open_hosts(open_incus(root=root)) as hosts:
        with open_journal(root.journal) as journal, share_root(root.path):
            context = Context.on(hosts, LOCAL, root=root, journal=journal)
            late = overdue(context)
            faults: list[BaseException] = []
            doomed = await (reaper.expired if expired else reaper.unneeded)(context, faults.append)
            if output == "human":
                for job in late:
                    then = "would be" if dry_run else "is"
                    click.echo(f"{job}: past its deadline; it {then} ended")
                for one in doomed:
                    click.echo(plain(f"{one.instance}: {one.reason}"))
            if not dry_run:
                faults += await recover(context, Queue(default_capacity()), only=late)
            for fault in once_a_host(faults):
                print_error(fault if isinstance(fault, PikaciError) else PikaciError(str(fault)))
            problems = {} if dry_run else await reaper.reap(context, doomed)
            for instance, problem in problems.items():
                click.echo(plain(f"pikaci: {instance} could not be deleted: {problem}"), err=True)
            instances = tuple(
                ReapedInstance(
                    instance=one.instance,
                    reason=one.reason,
                    deleted=not dry_run and one.instance not in problems,
                    problem=str(problems.get(one.instance, "")),
                )
                for one in doomed
            )
            report = ReapReport(dry_run=dry_run, overdue=tuple(late), instances=instances)
            if not print_items(output, instances, report):
                gone = counted(len(doomed) - len(problems), "instance")
                click.echo(f"{'would delete' if dry_run else 'deleted'} {gone}")
            return EXIT_CODES[Verdict.INFRASTRUCTURE] if problems or faults else 0
