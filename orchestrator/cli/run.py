"""`pikaci run`: jobs of the job file, or one command."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.ad_hoc import ad_hoc_job, ad_hoc_options, refuse_flags
from orchestrator.cli.complete import jobs_of_file, outputs_of_file
from orchestrator.cli.options import (
    jobs_option,
    output_option,
    quiet_option,
    real_workspace,
    state_root_of,
    state_root_option,
    verbose_option,
    workspace_option,
)
from orchestrator.cli.usage import OneOf
from orchestrator.cli.workspace import JOB_FILE
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.job.submission import Request
    from orchestrator.state_root import StateRoot

KEEP_SECS = 3600.0
FRESH, EVERY = "--fresh", "*"  # no job has that name


class RunCommand(click.Command):
    """Splits the arguments at the first `--`: after it comes a command, not job names.

    A value of `--fresh` follows a `=`: in `--fresh test` the word is the name of a job to run.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["ad_hoc"] = args[at + 1 :]
            args = args[:at]
        args = [f"{FRESH}={EVERY}" if word == FRESH else word for word in args]
        return super().parse_args(ctx, args)


@click.command("run", cls=RunCommand)
@click.argument("jobs", nargs=-1, metavar="[JOB...] [-- COMMAND...]", shell_complete=jobs_of_file)
@click.option(
    "-f",
    "--file",
    "job_file",
    type=click.Path(path_type=Path),
    help=f"The job file. Default: {JOB_FILE} in the workspace. Without --workspace, the directory"
    " of the file that is named is the workspace.",
)
@workspace_option
@state_root_option
@jobs_option
@output_option
@quiet_option
@verbose_option
@click.option(
    FRESH,
    multiple=True,
    metavar="[=JOB]",
    shell_complete=outputs_of_file,
    help="Make the outputs of the run's jobs anew, or with =JOB that job's, even if they could be"
    " reused.",
)
@click.option(
    "--fail-fast",
    is_flag=True,
    help="Stop at the first job that does not pass: cancel running jobs, skip queued ones.",
)
@click.option(
    "--exit-code",
    type=OneOf(["pikaci", "command"]),
    default="pikaci",
    show_default=True,
    help="`command`: exit with the exit code of the command, for one job.",
)
@click.option(
    "-n", "--dry-run", is_flag=True, help="Print the plan and its incus commands. Run nothing."
)
@click.option(
    "--keep-on-failure",
    is_flag=True,
    help="Keep the guest of a job that did not pass for an hour, and say how to enter it.",
)
@ad_hoc_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    jobs: tuple[str, ...],
    job_file: Path | None,
    workspace: Path | None,
    state_root: Path | None,
    parallel: int | None,
    output: str,
    quiet: bool,
    verbose: bool,
    fresh: tuple[str, ...],
    fail_fast: bool,
    exit_code: str,
    dry_run: bool,
    keep_on_failure: bool,
    **flags: Any,
) -> int:
    """Run jobs of the job file (all by default), or one command.

    \b
    pikaci run                  every job of pikaci.toml
    pikaci run lint test        two of them, and what they need
    pikaci run 'test-*'         those that match; quoted, so that the shell leaves it alone
    pikaci run -- make check    one command, without a job file
    pikaci run --timeout 10m --egress '*' -- make check

    The job file is that of this directory, or of the nearest one above it.

    On a terminal, running jobs are shown below finished ones; -v also shows their output.
    Elsewhere, each line of output is printed after its job's name. The output of a single command
    is printed unchanged.

    Exit codes: 0 all passed, 1 a command failed, 2 usage or a rejected job, 3 timed out,
    4 infrastructure, 5 the file has no jobs, 130 interrupted. With `--exit-code command`: the
    command's own, or 240 timed out, 241 infrastructure, 242 configuration, 243 cancelled.
    """
    from orchestrator.cli.exit_codes import ExitCodes

    ad_hoc: list[str] | None = ctx.meta.get("ad_hoc")

    def run() -> int:
        from orchestrator.job.submission import Request

        tree = real_workspace(
            job_file.absolute().parent if job_file and not workspace else workspace
        )
        root = state_root_of(tree, state_root)
        if ad_hoc is not None:
            if jobs or job_file is not None:
                raise UsageError(
                    "job names and --file cannot be combined with a command after `--`",
                    resolution="use one or the other",
                )
            below = "" if workspace else os.path.relpath(Path.cwd(), tree)
            request = Request(tree, ad_hoc_job(ad_hoc, flags, below))
        else:
            refuse_flags(flags)
            request = _from_file(tree, job_file or tree / JOB_FILE, jobs, root)
        request = replace(request, fresh=_fresh(request, fresh), fail_fast=fail_fast)
        if codes is ExitCodes.COMMAND and len(request.specs) != 1:
            raise UsageError(
                f"--exit-code command needs one job, and there are {len(request.specs)}",
                resolution="name one job, or remove the option",
            )
        keep_secs = KEEP_SECS if keep_on_failure else None
        if dry_run:
            from orchestrator.cli.dry_run import print_plans

            return print_plans(request, root, keep_secs=keep_secs or 0, output=output)
        from orchestrator.cli.run_request import run_request
        from orchestrator.cli.watch import View

        view = View(output=output, quiet=quiet, verbose=verbose, command=ad_hoc is not None)
        return run_request(request, root, view, parallel=parallel, keep_secs=keep_secs, codes=codes)

    codes = ExitCodes(exit_code)
    return codes.guard(run)


def _fresh(request: Request, asked: tuple[str, ...]) -> tuple[str, ...]:
    from orchestrator.job.submission import with_output

    every = with_output(request.specs) if EVERY in asked else ()
    return tuple(dict.fromkeys((*every, *(name for name in asked if name != EVERY))))


def _from_file(tree: Path, path: Path, names: tuple[str, ...], root: StateRoot) -> Request:
    from orchestrator.host_paths import MountRule
    from orchestrator.job.submission import Request
    from orchestrator.jobfile import load, select

    loaded = load(path)
    specs = select(loaded, names, mount_rule=MountRule((root.path,)))
    return Request(tree, specs, include=loaded.include, exclude=loaded.exclude, git=loaded.git)
