"""`pikaci trace diff` for people: two jobs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.history import test_lines
from orchestrator.terminal import first_line, plain
from orchestrator.units import duration, seconds
from orchestrator.words import job_word, output_lines

if TYPE_CHECKING:
    from orchestrator.cli.trace_compare import Compared
    from orchestrator.tracing.difference import Row
    from orchestrator.tracing.timeline import Timeline

# Shorter in both is not shown.
SMALL_SECS = 0.01


def show_difference(compared: Compared) -> None:
    """Outcome, inputs and path first; then the times, and how much more the second took."""
    found = compared.difference
    for letter, job in (("A", found.one), ("B", found.other)):
        secs = (job.settled - job.begin).total_seconds()
        click.echo(
            f"{letter}  {plain(job.name)} ({plain(job.id)}): {job_word(job.job)},"
            f" {duration(secs)}, attempts: {max(1, job.job.attempt)}"
        )
        for line in output_lines(job.job, job.missing):
            click.echo(f"   {plain(line)}")
    click.echo()
    if not found.same_outcome:
        click.echo("  different outcomes:")
        for letter, job in (("A", found.one), ("B", found.other)):
            click.echo(f"    {letter}  {_why(job)}")
    _show_changes(compared)
    if not found.same_path:
        last = found.one.states[found.common - 1].name if found.common else ""
        click.echo(f"  different paths {f'after {last}' if last else 'from the start'}:")
        for letter, job in (("A", found.one), ("B", found.other)):
            rest = " -> ".join(span.name for span in job.states[found.common :])
            click.echo(f"    {letter}  {rest or 'nothing more'}")
    if found.same_outcome and found.same_path:
        click.echo("  same path, same outcome")
    click.echo(f"\n  {'':20} {'A':>11}  {'B':>11}  {'B - A':>11}")
    for row in found.rows:
        if max(row.one, row.other) >= SMALL_SECS:
            click.echo(_row(row))
    if not found.notable:
        click.echo("  no notable difference in times")


def _show_changes(compared: Compared) -> None:
    if not compared.changes:
        click.echo("  same inputs: commit, files, image, inputs and spec")
    for change in compared.changes:
        click.echo(f"  {plain(change.what)}: {_told(change.one)} -> {_told(change.other)}")
    for line in test_lines(compared.tests) if compared.tests is not None else ():
        click.echo(f"  {plain(line)}")


def _told(value: str) -> str:
    return plain(value) or "none"


def _row(row: Row) -> str:
    name = f"  {row.effect}" if row.effect else row.state
    line = f"  {name:20} {seconds(row.one)}  {seconds(row.other)}  {seconds(row.more, signed=True)}"
    if not row.notable:
        return line
    low, high = sorted((row.one, row.other))
    if low < SMALL_SECS / 10:
        return f"{line}  only in {'B' if row.more > 0 else 'A'}"
    return f"{line}  {high / low:.1f}x {'slower' if row.more > 0 else 'faster'}"


def _why(job: Timeline) -> str:
    verdict = job_word(job.job)
    why = first_line(job.failure.message) if job.failure else ""
    return why if why.startswith(verdict) else ": ".join(part for part in (verdict, why) if part)
