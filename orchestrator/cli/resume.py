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

    A running job is followed to its end, a finished one's result is collected, and a half-created
    guest is created again. Unneeded instances are deleted.

    A job that has not started and whose secret is missing here is reported and left as it is, and
    so are the jobs that need it.

    The exit codes are those of `pikaci run` for the same jobs. 0 also if there are no such jobs,
    2 if all others passed and some lack a secret.
    """
    from orchestrator.cli.resume_jobs import resume_jobs

    return resume_jobs(state_root_of(real_workspace(workspace), state_root), output)
