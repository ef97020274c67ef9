"""`pikaci run`: jobs of the job file, or one command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    output_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.state_root import StateRoot
    from states.spec import JobSpec

JOB_FILE = "pikaci.toml"
AD_HOC_NAME = "command"
KEEP_SECS = 3600.0


class RunCommand(click.Command):
    """Splits the arguments at the first `--`: what follows is one command, not job names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["ad_hoc"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command("run", cls=RunCommand)
@click.argument("jobs", nargs=-1, metavar="[JOB...] [-- COMMAND...]")
@click.option(
    "--file",
    "job_file",
    type=click.Path(path_type=Path),
    help=f"The job file; {JOB_FILE} in the workspace when not given.",
)
@workspace_option
@state_root_option
@click.option(
    "--jobs",
    "parallel",
    type=click.IntRange(1, 64),
    metavar="N",
    help="How many jobs run at once; as many as there are processors, at most 4, by default.",
)
@output_option
@click.option("--dry-run", is_flag=True, help="Print the plan and its incus commands; run nothing.")
@click.option(
    "--keep-on-failure",
    is_flag=True,
    help="Keep the guest of a job that did not pass, for an hour, and say how to look into it.",
)
@click.pass_context
def command(
    ctx: click.Context,
    jobs: tuple[str, ...],
    job_file: Path | None,
    workspace: Path | None,
    state_root: Path | None,
    parallel: int | None,
    output: str,
    dry_run: bool,
    keep_on_failure: bool,
) -> int:
    """Run jobs of the job file (all of them when none is named), or one command.

    \b
    pikaci run                  every job of ./pikaci.toml
    pikaci run lint test        two of them
    pikaci run -- make check    one command, without a job file

    Exit codes: 0 all passed, 1 a command failed, 2 usage or a rejected job, 3 timed out,
    4 infrastructure, 5 the file has no jobs, 130 interrupted.
    """
    from orchestrator.job.submission import Request

    if workspace is None and job_file is not None:
        workspace = job_file.absolute().parent
    tree = real_workspace(workspace)
    root = state_root_of(tree, state_root)
    ad_hoc: list[str] | None = ctx.meta.get("ad_hoc")
    if ad_hoc is not None:
        specs: Mapping[str, JobSpec] = _ad_hoc(ad_hoc, jobs, job_file)
        include: tuple[str, ...] = ()
    else:
        specs, include = _from_file(job_file or tree / JOB_FILE, jobs, root)
    request = Request(
        workspace=tree,
        specs=specs,
        include=include,
    )
    keep_secs = KEEP_SECS if keep_on_failure else None
    if dry_run:
        from orchestrator.cli.dry_run import print_plans

        return print_plans(request, root, keep_secs=keep_secs or 0)
    from orchestrator.cli.run_request import run_request

    return run_request(request, root, output, parallel=parallel, keep_secs=keep_secs)


def _ad_hoc(
    words: list[str], jobs: tuple[str, ...], job_file: Path | None
) -> Mapping[str, JobSpec]:
    from states.spec import JobSpec

    if jobs or job_file is not None:
        raise UsageError(
            "a command after `--` runs without a job file",
            resolution="name jobs, or give a command after `--`, not both",
        )
    if not any(word.strip() for word in words):
        raise UsageError(
            "there is no command after `--`", resolution="for example: pikaci run -- make test"
        )
    line = words[0] if len(words) == 1 else shlex.join(words)
    try:
        line.encode()
    except UnicodeEncodeError:
        raise UsageError(
            "the command after `--` is not UTF-8", resolution="put such bytes into a script"
        ) from None
    return {AD_HOC_NAME: JobSpec(command=line)}


def _from_file(
    path: Path, names: tuple[str, ...], root: StateRoot
) -> tuple[Mapping[str, JobSpec], tuple[str, ...]]:
    from orchestrator.host_paths import MountRule
    from orchestrator.jobfile import load, select

    loaded = load(path, mount_rule=MountRule((root.path,)))
    return select(loaded, names), loaded.include
