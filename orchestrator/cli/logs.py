"""`pikaci logs`: a job's log, also while it is written."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)

if TYPE_CHECKING:
    from orchestrator.journal import Journal
    from states.job import Job

# The log grows in another process: looking at a file's size is how a follower learns of it.
FOLLOW_SECS = 0.1
CHUNK = 1 << 20


@click.command("logs")
@click.argument("job", required=False)
@workspace_option
@state_root_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
def command(job: str | None, workspace: Path | None, state_root: Path | None, follow: bool) -> int:
    """Print the log of a job: of its current attempt, byte for byte.

    On a terminal, control sequences of the guest are left out, but for colours.
    """
    from orchestrator.cli.find import existing_journal, find_job

    root = state_root_of(real_workspace(workspace), state_root)
    with existing_journal(root, only_reading=True) as journal:
        row = find_job(journal, job)
        _copy(journal, row.id, follow=follow)
    return 0


def _copy(journal: Journal, job_id: str, *, follow: bool) -> None:
    """Copy by path and offset: at the end the log may be replaced by a longer one."""
    attempt, offset = 0, 0
    while True:
        job = journal.job(job_id)
        if job.attempt != attempt:
            attempt, offset = job.attempt, 0
        # Looked at before the copy, so that what was written until the end is copied too.
        done = job.ended or not follow
        offset = _copy_from(job, offset)
        if done:
            return
        time.sleep(FOLLOW_SECS)


def _copy_from(job: Job, offset: int) -> int:
    if not job.artifacts:
        return offset
    try:
        with (Path(job.artifacts) / "guest.log").open("rb") as log:
            log.seek(offset)
            while chunk := log.read(CHUNK):
                _write(sys.stdout.buffer, chunk)
                offset += len(chunk)
    except FileNotFoundError:
        pass
    return offset


def _write(out: BinaryIO, chunk: bytes) -> None:
    from orchestrator.terminal import styled

    out.write(styled(chunk).encode() if sys.stdout.isatty() else chunk)
    out.flush()
