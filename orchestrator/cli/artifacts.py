"""`pikaci artifacts`: lists what a job left, or copies it."""

from __future__ import annotations

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
    from orchestrator.attempt.archive import Manifest
    from orchestrator.cli.documents import ArtifactsReport
    from states.job import Job


@click.command("artifacts")
@click.argument("job", required=False, shell_complete=jobs_and_runs)
@click.option(
    "--to",
    "into",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Copy the artifacts into this directory. It is created if it does not exist.",
)
@click.option("--force", is_flag=True, help="With --to: replace existing files.")
@workspace_option
@state_root_option
@output_option
def command(
    job: str | None,
    into: Path | None,
    force: bool,
    workspace: Path | None,
    state_root: Path | None,
    output: str,
) -> int:
    """List the artifacts of a job with their sizes, or copy them.

    Default: the only job of the newest run. If one of the files exists already, nothing is copied
    without --force. Executable files stay executable.
    """
    from orchestrator.cli.documents import ArtifactsReport
    from orchestrator.cli.find import find_job, read_existing_journal
    from orchestrator.cli.output import print_items

    if force and into is None:
        raise UsageError("--force needs --to", resolution="remove --force, or add --to DIR")
    root = state_root_of(real_workspace(workspace), state_root)
    with read_existing_journal(root) as journal:
        found = journal.job(find_job(journal, job).id)
    manifest = _manifest(found)
    directory = Path(found.artifacts or "") / "artifacts"
    files = sorted(manifest.files, key=lambda file: file.path)
    if into is not None:
        from orchestrator.cli.copy_out import copy_out

        copy_out(directory, files, into, force=force)
        directory = into.absolute()
    report = ArtifactsReport(
        job=found.id,
        directory=str(directory),
        files=tuple(files),
        refused=manifest.refused,
        problem=manifest.problem,
    )
    if not print_items(output, files, report):
        _print(report, copied=into is not None)
    return 0


def _manifest(job: Job) -> Manifest:
    from orchestrator.attempt.archive import Manifest, read_artifacts

    if not job.artifacts:
        return Manifest(files=(), refused=(), problem="")
    return read_artifacts(Path(job.artifacts))


def _print(report: ArtifactsReport, *, copied: bool) -> None:
    from orchestrator.terminal import plain
    from orchestrator.units import counted, size

    count = counted(len(report.files), "artifact")
    if copied:
        click.echo(f"copied {count} to {plain(report.directory)}")
    elif report.files:
        sizes = [size(file.size) for file in report.files]
        width = max(map(len, sizes))
        for text, file in zip(sizes, report.files, strict=True):
            click.echo(f"{text:>{width}}  {plain(file.path)}")
    else:
        click.echo("the job left no artifacts")
    for refused in report.refused:
        click.echo(f"warning: {plain(refused.path)}: {plain(refused.reason)}", err=True)
    if report.problem:
        click.echo(f"warning: {plain(report.problem)}", err=True)
