"""`pikaci shell --before` and `--after`: a shell in a new guest, made for it."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import click
import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.cli.ending import INTERRUPTED
from orchestrator.cli.find import find_job, read_existing_journal
from orchestrator.cli.run_request import check_secrets, root_held
from orchestrator.cli.shell import enter_job
from orchestrator.cli.signals import cancel_on_signals, tell_stopping
from orchestrator.job.hold import HELD, held, held_name
from orchestrator.job.rerun import jobs_to_rerun, rerun_request
from orchestrator.job.submission import Request
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.remote import RemoteService, connect
from orchestrator.service.serving import default_socket
from orchestrator.settings import Settings
from orchestrator.state_root import StateRoot
from orchestrator.terminal import TerminalFilter, plain

NOT_ENTERED = 4
LONGEST_LINE = 1 << 16


def shell_in_new_guest(root: StateRoot, word: str | None, *, after: bool) -> int:
    """Run the job again, held before or `after` its command; the shell's exit code.

    It is a run of its own, with the jobs that this one needs. `UsageError` if there is no such job,
    or its snapshot was deleted.
    """
    with read_existing_journal(root) as journal:
        row = find_job(journal, word)
        jobs = jobs_to_rerun(journal, [row], failed=False)
    job = next(one for one in jobs if one.id == row.id)
    request = rerun_request(root, jobs)
    spec = request.specs[job.name]
    others = {name: other for name, other in request.specs.items() if name != job.name}
    request = replace(
        request,
        specs={**others, held_name(job.name, others): held(spec, after=after)},
        hosts=(job.host,) if job.host else (),
    )
    if not root_held(root):
        check_secrets(request.specs)
    return trio.run(_run, root, request, spec.command)


async def _run(root: StateRoot, request: Request, command: str) -> int:
    code = INTERRUPTED
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            await nursery.start(cancel_on_signals, scope, IntentSwitch(), tell_stopping)
            async with _engine(root, request) as engine:
                code = await _enter_last_job(engine, root, request, command)
        nursery.cancel_scope.cancel()
    return code


@asynccontextmanager
async def _engine(root: StateRoot, request: Request) -> AsyncIterator[Orchestrator | RemoteService]:
    """What runs the jobs: this process, or the service that owns the state root."""
    if root_held(root):
        async with connect(default_socket(root)) as service:
            yield service
        return
    settings = Settings(workspace=Path(request.workspace), state_root=root.path)
    async with Orchestrator.open(settings) as orchestrator:
        yield orchestrator


async def _enter_last_job(
    engine: Orchestrator | RemoteService, root: StateRoot, request: Request, command: str
) -> int:
    # A submission that was broken off would run there, and nobody cancel it.
    with trio.CancelScope(shield=True):
        run = await engine.submit_run(request)
    *others, job = run.jobs
    try:
        _tell(f"the job {job.id} makes a guest for the shell")
        if await _show_until_held(job.log()):
            return await enter_job(root, job.id, command=command)
        ended = await job.wait()
        _tell(f"there is no guest to enter: the job {job.id} {ended.verdict}")
        return NOT_ENTERED
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await engine.cancel([one.id for one in (*others, job)])
        raise


async def _show_until_held(log: AsyncGenerator[bytes, None]) -> bool:
    """Show the job's log up to the line that its guest is held; False if it ends without one."""
    shown, line = TerminalFilter(), b""
    async with aclosing(log) as pieces:
        async for piece in pieces:
            for part in piece.splitlines(keepends=True):
                line += part
                if line == HELD:
                    return True
                if line.endswith(b"\n") or len(line) > LONGEST_LINE:
                    sys.stdout.write(shown.feed(line))
                    line = b""
            sys.stdout.flush()
    return False


def _tell(text: str) -> None:
    click.echo(plain(f"pikaci: {text}"), err=True)
