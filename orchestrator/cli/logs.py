"""`pikaci logs`: a job's log, or lines of it, also while it is written."""

from __future__ import annotations

import re
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.complete import jobs_and_runs
from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.cli.log_printers import BytePrinter, LinePrinter
    from orchestrator.journal import JobRow, JournalReader
    from orchestrator.state_root import StateRoot
    from states.job import Job

# The log grows in another process: looking at a file's size is how a follower learns of it.
FOLLOW_SECS = 0.1
CHUNK = 1 << 16
# The places of so many lines fit in memory.
MAX_TAIL = 100_000


@click.command("logs")
@click.argument("job", required=False, shell_complete=jobs_and_runs)
@workspace_option
@state_root_option
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the job ends.")
@click.option(
    "-n",
    "--tail",
    type=click.IntRange(1, MAX_TAIL),
    metavar="N",
    help="Start with the last N lines, or with --grep the last N that match.",
)
@click.option(
    "--timestamps",
    is_flag=True,
    help="Start each line with the time when the host received it (UTC), or with - if unknown.",
)
@click.option(
    "--grep",
    metavar="PATTERN",
    help="Print only lines that match this Python regular expression. Colours are ignored.",
)
@output_option
def command(
    job: str | None,
    workspace: Path | None,
    state_root: Path | None,
    follow: bool,
    tail: int | None,
    timestamps: bool,
    grep: str | None,
    output: str,
) -> int:
    """Print the log of a job's current attempt, byte for byte.

    On a terminal, control sequences other than colours are removed. With --timestamps, --grep or
    --output, a line is printed when it is complete. In JSON a line has its
    number, time and text: {"line": 120, "at": "2026-01-31T12:00:00.000Z", "text": "..."}.
    """
    from orchestrator.cli.find import find_job, read_existing_journal

    printer = _printer(grep, timestamps=timestamps, output=output)
    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        row = find_job(journal, job)
        _copy(journal, row, _Copier(root, printer, tail), follow=follow)
        printer.end()
    return 0


def _printer(grep: str | None, *, timestamps: bool, output: str) -> BytePrinter | LinePrinter:
    from orchestrator.cli.log_forms import JsonForm, TextForm
    from orchestrator.cli.log_printers import BytePrinter, LinePrinter

    pattern = None if grep is None else _compile(grep)
    if output != "human":
        return LinePrinter(JsonForm(array=output == "json"), pattern)
    if timestamps or pattern is not None:
        return LinePrinter(TextForm(timed=timestamps), pattern)
    return BytePrinter()


def _compile(grep: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            # Of what may mean something else in a Python to come.
            warnings.simplefilter("ignore")
            return re.compile(grep)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(
            f"--grep {grep!r} is not a valid regular expression: {error}",
            resolution=r"write a Python regular expression, with \ before a literal ( [ . * + ?",
        ) from None


class _Copier:
    """Gives a job's log to a printer, from its start or with its last `tail` lines."""

    def __init__(
        self, root: StateRoot, printer: BytePrinter | LinePrinter, tail: int | None
    ) -> None:
        self._root = root
        self._printer = printer
        self._tail = tail
        self._attempt = 0
        self._offset = 0

    def copy(self, job: Job) -> None:
        """What is new, by path and offset: at the end the log may be replaced by a longer one."""
        attempt = max(1, job.attempt)
        path = self._root.attempt_dir(job.id, attempt) / "guest.log"
        try:
            with path.open("rb") as log:
                if attempt != self._attempt:
                    self._begin(path, log.fileno(), attempt)
                log.seek(self._offset)
                while chunk := log.read(CHUNK):
                    self._printer.feed(chunk)
                    self._offset += len(chunk)
        except FileNotFoundError:
            pass

    def _begin(self, path: Path, file: int, attempt: int) -> None:
        from orchestrator.log_lines import Place

        # Of a later attempt, which begins while we follow, there is nothing that was before.
        last = self._tail if self._attempt == 0 else None
        place = self._printer.find_last(file, last) if last else Place()
        self._printer.begin(path, place)
        self._attempt, self._offset = attempt, place.offset


def _copy(journal: JournalReader, row: JobRow, copier: _Copier, *, follow: bool) -> None:
    while True:
        job = journal.look(row)  # the log is there also when the job's events cannot be read
        # Looked at before the copy, so that what was written until the end is copied too.
        done = job.ended or bool(job.damage) or not follow
        copier.copy(job)
        if done:
            return
        time.sleep(FOLLOW_SECS)
