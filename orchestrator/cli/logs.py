"""`pikaci logs`: a job's log, also while it is written."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.cli.output import print_bytes

if TYPE_CHECKING:
    from orchestrator.journal import JobRow, Journal
    from orchestrator.state_root import StateRoot
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
        _copy(root, journal, row, follow=follow)
    return 0


class _Copier:
    """Copies a job's log to stdout: on a terminal what is harmless, elsewhere every byte."""

    def __init__(self) -> None:
        from orchestrator.terminal import TerminalFilter

        self._filter = TerminalFilter() if sys.stdout.isatty() else None
        self._attempt = 0
        self._offset = 0

    def copy(self, root: StateRoot, job: Job) -> None:
        """What is new, by path and offset: at the end the log may be replaced by a longer one."""
        if job.attempt != self._attempt:
            self._attempt, self._offset = job.attempt, 0
        try:
            path = root.attempt_dir(job.id, max(1, job.attempt)) / "guest.log"
            with path.open("rb") as log:
                log.seek(self._offset)
                while chunk := log.read(CHUNK):
                    self._write(chunk if self._filter is None else self._filter.feed(chunk))
                    self._offset += len(chunk)
        except FileNotFoundError:
            pass

    def end(self) -> None:
        """What is left of a character or a colour that the log ends in."""
        if self._filter is not None:
            from orchestrator.terminal import RESET

            self._write(self._filter.end() + RESET)

    def _write(self, text: str | bytes) -> None:
        if isinstance(text, bytes):
            print_bytes(text)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()


def _copy(root: StateRoot, journal: Journal, row: JobRow, *, follow: bool) -> None:
    copier = _Copier()
    while True:
        job = journal.look(row)  # the log is there also when the job's events cannot be read
        # Looked at before the copy, so that what was written until the end is copied too.
        done = job.ended or bool(job.damage) or not follow
        copier.copy(root, job)
        if done:
            copier.end()
            return
        time.sleep(FOLLOW_SECS)
