"""`pikaci run --repeat`: the same jobs, one run after another, to find out if they are flaky."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.cli.watch import View
    from orchestrator.job.submission import Request
    from orchestrator.report import JobDocument, RunReport
    from orchestrator.state_root import StateRoot

# So many jobs that failed are named.
NAMED = 5


def check_repeat(times: int | None, output: str, *, until_fail: bool) -> None:
    """Raise `UsageError` for options that do not fit together."""
    if until_fail and times is None:
        raise UsageError(
            "--until-fail needs --repeat", resolution="add --repeat N, the maximum number of runs"
        )
    if times is not None and output == "json":
        raise UsageError(
            "--repeat prints more than one document, and --output json is for one",
            resolution="use --output jsonl: a line for each event",
        )


def run_repeatedly(
    once: Callable[[Request], RunReport],
    request: Request,
    root: StateRoot,
    view: View,
    *,
    times: int,
    until_fail: bool,
) -> list[RunReport]:
    """Run the request so often, or until a run did not pass; return a report of each.

    All see the snapshot of the first. A run that was interrupted or rejected is the last.
    """
    from orchestrator.job.rerun import earlier_snapshot
    from states.outcome import Verdict

    reports: list[RunReport] = []
    for number in range(1, times + 1):
        if not view.quiet:
            click.echo(f"{number} of {times}", err=True)
        report = once(request)
        reports.append(report)
        if report.outcome in (Verdict.CANCELLED, Verdict.REJECTED):
            break
        if until_fail and report.outcome is not Verdict.PASSED:
            break
        seen = earlier_snapshot(root, [job.snapshot for job in report.jobs])
        request = replace(request, snapshot=seen)
    if view.output == "human":
        for line in summary(reports):
            click.echo(line, err=view.command)
    return reports


def summary(reports: Sequence[RunReport]) -> list[str]:
    """How the runs ended, and each job that did not always pass."""
    from orchestrator.terminal import plain
    from orchestrator.words import VERDICTS
    from states.outcome import Verdict

    counts = Counter(report.outcome for report in reports)
    said = [f"{counts[verdict]} {VERDICTS[verdict]}" for verdict in Verdict if counts[verdict]]
    lines = [f"{len(reports)} run{'s' if len(reports) != 1 else ''}: {', '.join(said)}"]
    jobs: dict[str, list[JobDocument]] = {}
    for report in reports:
        for job in report.jobs:
            jobs.setdefault(job.name, []).append(job)
    for name, ones in jobs.items():
        bad = [job.id for job in ones if job.verdict is not Verdict.PASSED]
        if bad:
            more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
            where = ", ".join(bad[:NAMED]) + more
            lines.append(
                f"  {plain(name)}: {len(ones) - len(bad)} of {len(ones)} passed, not {where}"
            )
    flaky = [job for ones in jobs.values() for job in ones if job.flake is not None]
    if flaky:
        # What these runs found: a job that passed may have failed in a run before them.
        job = next((job for job in reversed(flaky) if job.verdict is not Verdict.PASSED), flaky[-1])
        good, bad_one = job.id, job.flake.other if job.flake else ""
        if job.verdict is not Verdict.PASSED:
            good, bad_one = bad_one, good
        lines.append(f"-> pikaci trace diff {shlex.quote(good)} {shlex.quote(bad_one)}")
    return lines
