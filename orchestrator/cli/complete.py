"""Words that a shell completes: names of jobs in the job file, and jobs and runs of the past.

Whatever is wrong, there is nothing to complete: no error is printed, and nothing is created.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

Complete = Callable[[click.Context, click.Parameter, str], list[str]]

MAX_BYTES = 1 << 20
# Jobs of the past that are looked at, newest first.
RECENT = 200


def jobs_of_file(ctx: click.Context, _: click.Parameter, word: str) -> list[str]:
    """The names in the job file that `pikaci run` would read."""
    try:
        return _beginning(word, _names(ctx))
    except Exception:  # whatever it is, the shell must not show it
        return []


def names_of_hosts(_: click.Context, __: click.Parameter, word: str) -> list[str]:
    """The hosts of the user's settings."""
    try:
        from orchestrator.hosts.settings import load_hosts

        return _beginning(word, ("local", *load_hosts()))
    except Exception:  # whatever it is, the shell must not show it
        return []


def outputs_of_file(ctx: click.Context, _: click.Parameter, word: str) -> list[str]:
    """The names of its jobs that have an output."""
    try:
        jobs = _jobs(ctx)
        return _beginning(word, (name for name in _names(ctx) if "output" in jobs[name]))
    except Exception:
        return []


def jobs_and_runs(ctx: click.Context, _: click.Parameter, word: str) -> list[str]:
    """Names of recent jobs and runs; ids of jobs once a run is named."""
    try:
        return _beginning(word, _recent(ctx, ids="." in word))
    except Exception:
        return []


def _beginning(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(word)]


def _names(ctx: click.Context) -> list[str]:
    given = ctx.params.get("jobs") or ()
    return [name for name in _jobs(ctx) if name not in given and name.isprintable()]


def _jobs(ctx: click.Context) -> dict[str, Any]:
    import tomllib

    from orchestrator.cli.options import real_workspace
    from orchestrator.cli.workspace import JOB_FILE

    file, workspace = ctx.params.get("job_file"), ctx.params.get("workspace")
    path = Path(file) if file else real_workspace(workspace) / JOB_FILE
    with path.open("rb") as opened:
        jobs: dict[str, Any] = tomllib.loads(opened.read(MAX_BYTES).decode("utf-8-sig"))["jobs"]
    return jobs


def _recent(ctx: click.Context, *, ids: bool) -> list[str]:
    from orchestrator.cli.options import real_workspace, state_root_of
    from orchestrator.journal import read_journal

    root = state_root_of(real_workspace(ctx.params.get("workspace")), ctx.params.get("state_root"))
    if not root.journal.exists():
        return []
    with read_journal(root.journal) as journal:
        rows = [row for _, row in journal.newest(limit=RECENT)]
    if ids:
        return [row.id for row in rows]
    return [row.name for row in rows if row.name.isprintable()] + [row.run for row in rows]
