"""`pikaci serve`: the service, which has a state root of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.options import (
    hosts_option,
    real_workspace,
    state_root_of,
    state_root_option,
    workspace_option,
)
from orchestrator.cli.usage import OneOf
from orchestrator.errors import UsageError


@click.command("serve")
@workspace_option
@state_root_option
@hosts_option
@click.option(
    "-j",
    "--jobs",
    "parallel",
    type=click.IntRange(1),
    metavar="N",
    help="Run N jobs at once on each host. Default: one per processor, at most 4.",
)
@click.option(
    "--cpus",
    type=click.IntRange(1),
    metavar="N",
    help="CPUs for all running jobs of a host together. Default: no limit.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="Memory for all running jobs of a host together, such as 16GiB. Default: no limit.",
)
@click.option(
    "--queue",
    "queue_jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Queue at most N jobs. Default: 10000.",
)
@click.option(
    "--warm",
    type=click.IntRange(1),
    metavar="N",
    help="Keep up to N guests booted on each host, ready for the next jobs. Default: none.",
)
@click.option(
    "--warm-secs",
    type=click.IntRange(1),
    metavar="SECS",
    help="With --warm: for the kinds of jobs that began in the last SECS seconds. Default: 600.",
)
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    help="The unix socket. Default: service.sock in the state root.",
)
@click.option(
    "--allow-mounts",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIRECTORY",
    help="Let jobs mount directories below this one. Default: none. Repeatable.",
)
@click.option("--listen", metavar="ADDRESS:PORT", help="Also listen on TCP. Needs --token-file.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="A file with the token that TCP clients must send. Only you may be able to read it.",
)
@click.option(
    "--log",
    "log_form",
    type=OneOf(["text", "json"]),
    help="The format of the log. Default: json under systemd, else text.",
)
def command(
    workspace: Path | None,
    state_root: Path | None,
    hosts: tuple[str, ...],
    parallel: int | None,
    cpus: int | None,
    memory: str | None,
    queue_jobs: int | None,
    warm: int | None,
    warm_secs: int | None,
    socket_path: Path | None,
    allow_mounts: tuple[Path, ...],
    listen: str | None,
    token_file: Path | None,
    log_form: str | None,
) -> int:
    """Run the service: HTTP API and web page.

    It runs jobs, and resumes the jobs of dead processes. No other process runs jobs in its state
    root: `pikaci run` submits its jobs to the service.

    The service only needs the right to use Incus, but that right (the group incus-admin) is as good
    as root on the host. Jobs may mount only what --allow-mounts names, but any client can read what
    this user can read. So only this user can open the socket, and TCP needs a token.

    TERM, Ctrl-C or a closed terminal stops the service with exit code 0. Its jobs continue in their
    guests, and the next start resumes them. A second signal stops it without completing open
    requests.
    """
    import trio

    try:
        from orchestrator.service.logs import goes_to_journal, logging_to
        from orchestrator.service.serving import Endpoints, default_socket, serve
    except ModuleNotFoundError as error:
        raise UsageError(
            f"`pikaci serve` needs the Python package {error.name}",
            resolution="pip install '/path/to/pikaci[service]'",
        ) from None
    from functools import partial

    from orchestrator.capacity import Capacity, WarmGuests
    from orchestrator.cli.signals import stop_signals
    from orchestrator.cli.streams import drop, write_all
    from orchestrator.hosts import find_host
    from orchestrator.settings import QUEUE_JOBS, Settings, default_capacity

    if warm_secs is not None and warm is None:
        raise UsageError(
            f"--warm-secs {warm_secs} needs --warm", resolution="say how many: --warm 2"
        )
    tree = real_workspace(workspace)
    root = state_root_of(tree, state_root)
    settings = Settings(
        workspace=tree,
        state_root=root.path,
        capacity=Capacity(
            jobs=parallel or default_capacity().jobs, cpus=cpus, memory=_bytes(memory)
        ),
        queue_jobs=queue_jobs or QUEUE_JOBS,
        hosts=tuple(find_host(name).name for name in hosts),
        allow_mounts=_directories(allow_mounts),
        warm=WarmGuests(size=warm, idle_secs=warm_secs or 600) if warm is not None else None,
    )
    endpoints = Endpoints(
        socket=(socket_path or default_socket(root)).absolute(),
        listen=listen,
        token_file=token_file,
    )
    journal = goes_to_journal(sys.stdout)
    as_json = journal if log_form is None else log_form == "json"
    out, broken = partial(write_all, 1), partial(drop, 1)
    with logging_to(out, as_json=as_json, to_journal=journal, on_broken=broken):
        trio.run(partial(serve, settings, endpoints, stop_signals=stop_signals()))
    return 0


def _directories(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    for path in paths:
        if not path.is_dir():
            raise UsageError(
                f"--allow-mounts {path}: there is no such directory",
                resolution="name an existing directory",
            )
    return tuple(path.absolute() for path in paths)


def _bytes(memory: str | None) -> int | None:
    import re

    from states.spec import SIZE_PATTERN, size_in_bytes

    if memory is not None and not re.match(SIZE_PATTERN, memory):
        raise UsageError(
            f"--memory {memory} is not a valid size", resolution="write a size such as 16GiB"
        )
    return None if memory is None else size_in_bytes(memory)
