"""What a person, or a program, sees of a run while it goes on and when it has ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click
import msgspec

from orchestrator.cli.output import print_json
from orchestrator.report import run_report
from orchestrator.terminal import plain
from states import events as ev
from states import recorded
from states.job import Job

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.snapshot.snapshot import Snapshot


class Watch(Protocol):
    """Who shows a run. `end` returns the exit code of the command."""

    def begin(self, run: str, request: Request) -> None: ...

    def snapshot(self, snapshot: Snapshot) -> None: ...

    def entry(self, entry: ev.Entry) -> None: ...

    def log(self, job: str, chunk: bytes) -> None: ...

    def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> int: ...


def show_snapshot(watch: Watch, snapshot: Snapshot) -> None:
    """Show what the run's jobs see, and its warnings on stderr, whatever the watch shows."""
    for warning in snapshot.warnings:
        click.echo(f"warning: {plain(warning)}", err=True)
    watch.snapshot(snapshot)


class JsonWatch:
    """Prints one document at the end."""

    def begin(self, run: str, request: Request) -> None:
        pass

    def snapshot(self, snapshot: Snapshot) -> None:
        pass

    def entry(self, entry: ev.Entry) -> None:
        pass

    def log(self, job: str, chunk: bytes) -> None:
        pass

    def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> int:
        report = run_report(run, jobs, interrupted=interrupted)
        print_json(report, indent=True)
        return report.exit_code


class JsonLinesWatch(JsonWatch):
    """Prints every entry of the journal as a line, when it is durable."""

    def entry(self, entry: ev.Entry) -> None:
        print_json(msgspec.Raw(recorded.encode(entry)))

    def end(self, run: str, jobs: Sequence[Job], *, interrupted: bool) -> int:
        return run_report(run, jobs, interrupted=interrupted).exit_code


@contextmanager
def open_watch(output: str) -> Iterator[Watch]:
    """The watch for `--output`; a person's is live on a terminal and plain elsewhere."""
    if output == "json":
        yield JsonWatch()
    elif output == "jsonl":
        yield JsonLinesWatch()
    elif sys.stdout.isatty():
        from orchestrator.cli.live import LiveWatch

        with LiveWatch() as live:
            yield live
    else:
        from orchestrator.cli.plain import PlainWatch

        yield PlainWatch(sys.stdout)
