"""`pikaci history`: how a job went over time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli import options
from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.history import HistoryEntry, JobHistory
    from states.changes import TestChanges

# The newest results have a line each; JSON has all.
SHOWN = 20
NAMED = 5
COMMIT = 12


@click.command("history")
@click.argument("job", shell_complete=jobs_and_runs)
@workspace_option
@state_root_option
@click.option(
    "-n",
    "--last",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="Look at the newest N results.",
)
@output_option
def command(
    job: str, workspace: Path | None, state_root: Path | None, last: int, output: str
) -> int:
    """Show a job's results over time: pass rate, times, since when it fails, the newest results.

    JOB is a job's name or id. A result is what the command did: passed, failed or timed out. Jobs
    that were reused, skipped, cancelled or had an infrastructure fault have no result.
    """
    from orchestrator.cli.find import find_job, read_existing_journal
    from orchestrator.cli.output import print_items
    from orchestrator.errors import UsageError
    from orchestrator.outlook import read_history

    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        named = find_job(journal, job)
        history = read_history(journal, named, limit=last)
        if history is None:
            raise UsageError(
                f"the job {named.name} has no result yet",
                resolution="`pikaci status` shows its state",
            )
    if not print_items(output, history.jobs, history):
        _show(history)
    return 0


def _show(history: JobHistory) -> None:
    from orchestrator.terminal import first_line, plain
    from orchestrator.units import duration

    kinds = ((history.passed, "passed"), (history.failed, "failed"))
    counts = [f"{number} {word}" for number, word in kinds if number]
    counts += [f"{history.timed_out} timed out"] if history.timed_out else []
    many = "s" if history.results != 1 else ""
    click.echo(
        f"{plain(history.name)}: {history.results} result{many}, {', '.join(counts)}"
        f" ({100 * history.rate:.0f} % passed)"
    )
    if history.p50_secs is not None and history.p95_secs is not None:
        click.echo(f"  time: p50 {duration(history.p50_secs)}, p95 {duration(history.p95_secs)}")
    if history.failing_since is not None:
        click.echo(f"  failing since {_where(history.failing_since)}")
        click.echo(f"    {first_line(history.failing_since.reason)}")
        passed = history.last_passed
        click.echo(f"  last passed in {_where(passed)}" if passed else "  it never passed")
        if history.changes:
            what = ", ".join(change.what for change in history.changes)
            click.echo(f"  different since then: {plain(what)}")
    if history.flakes:
        times = "once" if history.flakes == 1 else f"{history.flakes} times"
        click.echo(f"  flaky: it passed and failed with the same inputs {times}")
    if history.tests is not None:
        for line in test_lines(history.tests):
            click.echo(f"  {plain(line)}")
    click.echo()
    _show_entries(history.jobs[:SHOWN])
    if history.results > SHOWN:
        click.echo(f"and {history.results - SHOWN} older ones; --output json has them")
    if history.failing_since is not None and history.last_passed is not None:
        ids = f"{history.last_passed.id} {history.failing_since.id}"
        click.echo(f"-> pikaci trace diff {plain(ids)}{plain(options.root_flags)}")


def test_lines(tests: TestChanges) -> list[str]:
    """The tests that differ, a line for each kind."""
    kinds = (
        (tests.broken_count, tests.broken, "fail now"),
        (tests.fixed_count, tests.fixed, "are fixed"),
        (tests.added_count, tests.added, "are new"),
        (tests.removed_count, tests.removed, "did not run"),
    )
    lines = []
    for count, names, words in kinds:
        if count:
            more = f" and {count - NAMED} more" if count > NAMED else ""
            lines.append(f"tests that {words}: {', '.join(names[:NAMED])}{more}")
    return lines


def _where(entry: HistoryEntry) -> str:
    changed = " with changes" if entry.dirty else ""
    commit = f", commit {entry.commit[:COMMIT]}{changed}" if entry.commit else ""
    return f"run {entry.run} ({_since(entry)} ago{commit})"


def _since(entry: HistoryEntry) -> str:
    from datetime import UTC, datetime

    from orchestrator.units import age

    return age((datetime.now(UTC) - entry.at).total_seconds()) if entry.at else "unknown"


def _show_entries(entries: Sequence[HistoryEntry]) -> None:
    from orchestrator.cli.board import COLOURS
    from orchestrator.cli.run_table import print_table
    from orchestrator.cli.table import Column
    from orchestrator.terminal import first_line, plain
    from orchestrator.units import duration
    from orchestrator.words import VERDICTS

    words = [f"{VERDICTS[one.verdict]}{', flaky' if one.flaky else ''}" for one in entries]
    columns = [
        Column("JOB", [plain(one.id) for one in entries], gives=4),
        Column("AGE", [_since(one) for one in entries], right=True),
        Column("TIME", [duration(one.secs) for one in entries], right=True),
        Column("RESULT", words, stay=True, codes=[COLOURS[one.verdict] for one in entries]),
        Column("COMMIT", [one.commit[:COMMIT] for one in entries], gives=3),
        Column("WHY", [first_line(one.reason) for one in entries], gives=1, least=10),
    ]
    if not any(one.reason for one in entries):
        del columns[-1]
    print_table(columns)
