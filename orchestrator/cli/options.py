"""Options that several commands share."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from orchestrator.cli.complete import names_of_hosts
from orchestrator.cli.usage import OneOf
from orchestrator.cli.workspace import find_workspace
from orchestrator.errors import UsageError
from orchestrator.state_root import StateRoot, default_state_root

# For the traceback of a command that ends by a bug.
last_state_root: StateRoot | None = None
# What a person must add to another command to mean the same state root, with a space before it.
root_flags = ""
STATE_ROOT = "PIKACI_STATE_ROOT"

workspace_option = click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    help="The directory that jobs see. Default: the nearest directory with a pikaci.toml, from"
    " the current one upwards; if there is none, the current directory.",
)
state_root_option = click.option(
    "--state-root",
    envvar=STATE_ROOT,
    type=click.Path(path_type=Path),
    help="Where the journal, snapshots, logs and artifacts are (also PIKACI_STATE_ROOT)."
    " Default: a directory for each workspace in the user's state directory.",
)
output_option = click.option(
    "--output",
    type=OneOf(["human", "json", "jsonl"]),
    default="human",
    show_default=True,
    help="human: text; json: one document; jsonl: one JSON document per line.",
)


def _names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    return tuple(name for name in (text or "").split(",") if name)


def _name(_: click.Context, __: click.Parameter, text: str) -> str:
    if "," in text:
        raise UsageError(
            f"{text} names several hosts, but this command takes one", resolution="--host NAME"
        )
    return text


host_option = click.option(
    "--host",
    envvar="PIKACI_HOST",
    callback=_name,
    default="local",
    metavar="NAME",
    shell_complete=names_of_hosts,
    help="The host that runs the guests (also PIKACI_HOST). `pikaci host list` lists the hosts."
    " Default: this machine.",
)


def _keep_secs(_: click.Context, __: click.Parameter, keeps: bool) -> float | None:
    from states.spec import KEEP_SECS

    return float(KEEP_SECS) if keeps else None


hosts_option = click.option(
    "--host",
    "hosts",
    envvar="PIKACI_HOST",
    callback=_names,
    metavar="NAME[,NAME...]",
    shell_complete=names_of_hosts,
    help="The host that runs the guests (also PIKACI_HOST). `pikaci host list` lists the hosts. If"
    " you name several, each job takes the first one that can run it and has a free slot. A job's"
    " own `host` wins. Default: this machine.",
)
jobs_option = click.option(
    "-j",
    "--jobs",
    "parallel",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Run N jobs at once on each host. Default: one per processor, at most 4.",
)
keep_option = click.option(
    "--keep-on-failure",
    "keep_secs",
    is_flag=True,
    callback=_keep_secs,
    help="If a job does not pass, keep its guest for an hour, and print how to enter it. A job's"
    " own `keep` wins.",
)
wait_deleted_option = click.option(
    "--wait-deleted",
    is_flag=True,
    envvar="PIKACI_WAIT_DELETED",
    help="Return only when all guests are deleted. By default, Incus deletes the last one after"
    " the command returns. No effect with a service, which deletes them all.",
)
log_option = click.option(
    "--log",
    type=OneOf(["stdout", "stderr", "none"]),
    help="Where the jobs' output goes. Default: stdout; with --output json or jsonl: none, so that"
    " stdout has only JSON.",
)


def log_to(asked: str | None, output: str, *, quiet: bool) -> str:
    """Where the output of the jobs goes; `UsageError` for options that do not fit together."""
    if asked == "stdout" and output != "human":
        raise UsageError(
            f"--log stdout and --output {output} exclude each other", resolution="use --log stderr"
        )
    if asked is not None and quiet:
        raise UsageError("--log and --quiet exclude each other", resolution="use one")
    return asked or ("stdout" if output == "human" else "none")


quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Do not show the output of passing jobs."
)
verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Show every job's output, and each step of pikaci."
)


def real_workspace(workspace: Path | None) -> Path:
    """The workspace as a real path, found if none is named.

    `UsageError` when it is no directory, or when `find_workspace` refuses what it finds.
    """
    if workspace is None:
        return find_workspace(Path.cwd())
    path = workspace.resolve()
    if not path.is_dir():
        raise UsageError(
            f"--workspace {workspace}: there is no such directory",
            resolution="name an existing directory",
        )
    return path


def state_root_of(workspace: Path, state_root: Path | None) -> StateRoot:
    """The state root to use for a workspace."""
    global last_state_root, root_flags
    root = StateRoot(state_root.absolute() if state_root else default_state_root(workspace))
    last_state_root = root
    if state_root is not None and os.environ.get(STATE_ROOT) != str(state_root):
        root_flags = f" --state-root {shlex.quote(str(state_root))}"
    elif state_root is None and workspace != _found_workspace():
        root_flags = f" --workspace {shlex.quote(str(workspace))}"
    return root


def _found_workspace() -> Path | None:
    """The workspace of a command that names none; None if it is refused."""
    try:
        return find_workspace(Path.cwd())
    except UsageError:
        return None
