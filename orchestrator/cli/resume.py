"""`pikaci resume`: resumes jobs of dead processes."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)


@click.command("resume")
@workspace_option
@state_root_option
@output_option
def command(workspace: Path | None, state_root: Path | None, output: str) -> int:
    """Resume the jobs of dead pikaci processes, and wait until they end.

    This follows the jobs that still run, collects the results of jobs that have ended, and
    recreates guests that were only half created. It deletes instances that no job needs.

    If a secret of a job that has not started is missing here, the job is named and left for later,
    and so are the jobs that need it.

    Jobs on a host that cannot be reached are left for later too: they may still run there, and the
    next `resume` continues them.

    Exit codes: those of `pikaci run` for the same jobs; 0 also if there are no such jobs; 2 if a
    job lacks a secret and all others passed; 4 if a host could not be reached.
    """
    from orchestrator.cli.resume_jobs import resume_jobs

    return resume_jobs(state_root_of(real_workspace(workspace), state_root), output)
