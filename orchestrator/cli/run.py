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
    hosts_option,
    jobs_option,
    keep_option,
    log_option,
    log_to,
    output_option,
    quiet_option,
    real_workspace,
    state_root_of,
    state_root_option,
    verbose_option,
    wait_deleted_option,
    workspace_option,
)
from orchestrator.cli.repeat import check_repeat
from orchestrator.cli.usage import OneOf
from orchestrator.cli.workspace import JOB_FILE
from orchestrator.errors import UsageError
from orchestrator.incus import LOCAL

if TYPE_CHECKING:
    from orchestrator.hosts import HostChoice
    from orchestrator.job.submission import Request
    from orchestrator.report import RunReport
    from orchestrator.state_root import StateRoot

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
    help=f"The job file. Default: {JOB_FILE} in the workspace. Without --workspace, this file's"
    " directory is the workspace.",
)
@click.option(
    "--spec",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Read the jobs as JSON from this file, or from stdin (-), instead of a job file: one job,"
    " or a whole job file.",
)
@workspace_option
@state_root_option
@hosts_option
@jobs_option
@output_option
@log_option
@quiet_option
@verbose_option
@click.option(
    FRESH,
    multiple=True,
    metavar="[=JOB]",
    shell_complete=outputs_of_file,
    help="Rebuild outputs that could be reused: those of all jobs of the run, or with =JOB only"
    " that job's. Repeatable.",
)
@click.option(
    "--fail-fast",
    is_flag=True,
    help="Stop at the first job that does not pass: cancel running jobs and skip queued ones.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Run the jobs N times, one run after another, on one snapshot.",
)
@click.option(
    "--until-fail", is_flag=True, help="With --repeat: stop after the first run that fails."
)
@click.option(
    "--exit-code",
    type=OneOf(["pikaci", "command"]),
    default="pikaci",
    show_default=True,
    help="command: exit with the command's own exit code. For one job and the jobs that it needs.",
)
@click.option(
    "--key",
    metavar="TEXT",
    help="Run this only once: `pikaci run` with the same key and the same jobs shows the first run,"
    " whether it has ended or not.",
)
@click.option(
    "--artifacts-to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Copy the artifacts into this new or empty directory. With several jobs, each gets a"
    " directory with its name.",
)
@click.option(
    "-n", "--dry-run", is_flag=True, help="Print the plan and its incus commands. Run nothing."
)
@keep_option
@wait_deleted_option
@ad_hoc_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    jobs: tuple[str, ...],
    job_file: Path | None,
    spec: Path | None,
    workspace: Path | None,
    state_root: Path | None,
    hosts: tuple[str, ...],
    parallel: int | None,
    output: str,
    log: str | None,
    quiet: bool,
    verbose: bool,
    fresh: tuple[str, ...],
    fail_fast: bool,
    repeat: int | None,
    until_fail: bool,
    exit_code: str,
    key: str | None,
    artifacts_to: Path | None,
    dry_run: bool,
    keep_secs: float | None,
    wait_deleted: bool,
    **flags: Any,
) -> int:
    """Run jobs from the job file (all by default), or one command.

    \b
    pikaci run                    every job of pikaci.toml
    pikaci run lint test          two of them, and the jobs that they need
    pikaci run 'test-*'           jobs that match; quote it, so that the shell does not expand it
    pikaci run -- make check      one command, without a job file
    pikaci run --timeout 10m --egress '*' -- make check
    pikaci run --repeat 20 test   20 runs, to find out if a job is flaky
    pikaci run --spec - --output json <job.json    for programs

    The job file is the pikaci.toml of this directory, or the nearest one above it.

    On a terminal, running jobs are shown below finished ones; -v also shows their output.
    Elsewhere, each line of output starts with its job's name. The output of a single command is
    printed unchanged.

    Exit codes: 0 all passed, 1 a command failed, 2 usage or a rejected job, 3 timed out,
    4 infrastructure, 5 the file has no jobs, 130 interrupted or cancelled. With
    `--exit-code command`: the command's own, or 240 timed out, 241 infrastructure,
    242 configuration, 243 cancelled, 244 a job that it needs failed.
    """
    from orchestrator.cli.exit_codes import ExitCodes

    ad_hoc: list[str] | None = ctx.meta.get("ad_hoc")

    def run() -> int:
        from orchestrator.hosts import HostChoice
        from orchestrator.job.submission import Request

        tree = real_workspace(
            job_file.absolute().parent if job_file and not workspace else workspace
        )
        root = state_root_of(tree, state_root)
        choice = HostChoice.named(hosts or (LOCAL,))
        if ad_hoc is not None:
            if jobs or job_file is not None or spec is not None:
                raise UsageError(
                    "job names, --file and --spec cannot be combined with a command after `--`",
                    resolution="use one or the other",
                )
            below = "" if workspace else os.path.relpath(Path.cwd(), tree)
            request = Request(tree, ad_hoc_job(ad_hoc, flags, below))
        else:
            refuse_flags(flags)
            if spec is not None and job_file is not None:
                raise UsageError("--spec and --file exclude each other", resolution="use one")
            request = _from_file(tree, job_file or tree / JOB_FILE, spec, jobs, root, choice)
        fresh_jobs = _fresh(request, fresh)
        request = replace(
            request, fresh=fresh_jobs, fail_fast=fail_fast, hosts=hosts, key=key or ""
        )
        codes.check(request.specs)
        where = log_to(log, output, quiet=quiet)
        check_repeat(repeat, output, until_fail=until_fail)
        check_key(key, repeat)
        if artifacts_to is not None and repeat is not None:
            raise UsageError("--artifacts-to and --repeat exclude each other", resolution="use one")
        if dry_run:
            from orchestrator.cli.dry_run import print_plans

            return print_plans(
                request,
                root,
                choice=choice,
                keep=keep_secs or 0,
                wait_deleted=wait_deleted,
                output=output,
            )
        from orchestrator.cli.repeat import run_repeatedly
        from orchestrator.cli.run_request import run_request
        from orchestrator.cli.watch import View

        view = View(
            output=output,
            log=where,
            quiet=quiet,
            verbose=verbose,
            command=ad_hoc is not None,
        )

        def once(request: Request) -> RunReport:
            return run_request(
                request,
                root,
                view,
                parallel=parallel,
                keep_secs=keep_secs,
                wait_deleted=wait_deleted,
            )

        if repeat is None:
            if artifacts_to is None:
                return codes.of(once(request))
            from orchestrator.cli.copy_out import copy_run, new_directory

            new_directory(artifacts_to)
            report = once(request)
            copy_run(report, artifacts_to)
            return codes.of(report)
        reports = run_repeatedly(once, request, root, view, times=repeat, until_fail=until_fail)
        return next((code for report in reports if (code := codes.of(report))), 0)

    codes = ExitCodes(exit_code)
    return codes.guard(run)


def check_key(key: str | None, repeat: int | None) -> None:
    """Raise `UsageError` if the service would refuse the key, or if there are several runs.

    An empty one is refused too: it comes from a variable that is not set, and would run twice.
    """
    if key is None:
        return
    from orchestrator.job.submission import MAX_KEY

    if not 0 < len(key) <= MAX_KEY or not key.isprintable():
        raise UsageError(
            "the --key is not valid", resolution=f"write 1 to {MAX_KEY} printable characters"
        )
    if repeat is not None:
        raise UsageError("--key and --repeat exclude each other", resolution="use one")


def _fresh(request: Request, asked: tuple[str, ...]) -> tuple[str, ...]:
    from orchestrator.job.submission import with_output

    every = with_output(request.specs) if EVERY in asked else ()
    return tuple(dict.fromkeys((*every, *(name for name in asked if name != EVERY))))


def _from_file(
    tree: Path,
    path: Path,
    spec: Path | None,
    names: tuple[str, ...],
    root: StateRoot,
    choice: HostChoice,
) -> Request:
    from orchestrator.host_paths import MountRule
    from orchestrator.job.submission import Request
    from orchestrator.jobfile import load, select

    if spec is None:
        loaded = load(path)
    else:
        from orchestrator.jobfile_json import load_json

        loaded = load_json(spec)
    specs = select(loaded, names, mount_rule=MountRule((root.path,)), choice=choice)
    return Request(tree, specs, include=loaded.include, exclude=loaded.exclude, git=loaded.git)
