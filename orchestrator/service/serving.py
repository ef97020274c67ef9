"""Runs the service: opens the state root, listens, and stops on a signal."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from starlette.types import ASGIApp

from orchestrator.errors import UsageError
from orchestrator.incus import Incus
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.app import LocalOnly, make_app
from orchestrator.service.connections import serve_connections
from orchestrator.service.descriptors import connections_per_listener, raise_descriptor_limit
from orchestrator.service.garbage import collect_when_idle
from orchestrator.service.held import HeldRuns
from orchestrator.service.sd_notify import sd_notify, tell_watchdog
from orchestrator.service.server import tcp_socket, unix_socket
from orchestrator.service.token import RequireToken
from orchestrator.service.token_file import follow_tokens, read_tokens
from orchestrator.settings import Settings
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import fold

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoints:
    """Where a service listens: on a unix socket, and on `listen`, an ADDRESS:PORT.

    Clients of the latter need a token of `token_file`, which is read anew when it changes.
    """

    socket: Path
    listen: str | None = None
    token_file: Path | None = None


def default_socket(root: StateRoot) -> Path:
    """The path of the unix socket of a state root's service."""
    return root.path / "service.sock"


async def serve(
    settings: Settings,
    endpoints: Endpoints,
    *,
    stop_signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
    incus: Incus | None = None,
) -> None:
    """Serve until one of `stop_signals` arrives.

    Then no new jobs are accepted, and answers in progress get a moment to finish; a second signal
    stops that too. Running jobs continue in their guests, and the next start resumes them.
    `UsageError` if the state root is in use, or an endpoint cannot be opened.
    """
    tokens = _tokens(endpoints)
    async with Orchestrator.open(settings, incus=incus, exclusive=True) as orchestrator:
        orchestrator.journal.observe(partial(_log_entry, orchestrator))
        stopping = trio.Event()
        connections = connections_per_listener(
            raise_descriptor_limit(), listeners=1 if endpoints.listen is None else 2
        )
        # The other half is for short requests.
        held = HeldRuns(orchestrator)
        app = make_app(orchestrator, stopping=stopping, streams=connections // 2, held=held)
        try:
            with (
                ExitStack() as sockets,
                trio.open_signal_receiver(*stop_signals) as received,
            ):
                protected: RequireToken | None = None
                ways: list[tuple[ASGIApp, socket.socket]] = []
                ways.append((LocalOnly(app), sockets.enter_context(unix_socket(endpoints.socket))))
                if endpoints.listen is not None:
                    listener = sockets.enter_context(tcp_socket(endpoints.listen))
                    protected = RequireToken(app, tokens[0])
                    protected.accept(tokens)
                    ways.append((protected, listener))
                    _log.info("listening on %s; clients need the token", _address(listener))
                    _log.info("the page is at %s", page_url(listener))
                _log.info(
                    "serving %s on %s as process %d",
                    settings.root.path,
                    endpoints.socket,
                    os.getpid(),
                )
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(collect_when_idle, orchestrator)
                    nursery.start_soon(held.watch)
                    nursery.start_soon(tell_watchdog)
                    if protected is not None and endpoints.token_file is not None:
                        nursery.start_soon(
                            follow_tokens, endpoints.token_file, tokens, protected.accept
                        )
                    nursery.start_soon(_stop_on_signals, received, stopping, nursery.cancel_scope)
                    async with trio.open_nursery() as servers:
                        for way in ways:
                            servers.start_soon(
                                partial(serve_connections, *way, stopping, most=connections)
                            )
                        sd_notify("READY=1")
                    nursery.cancel_scope.cancel()
        finally:
            # However the service ends, its jobs continue.
            orchestrator.detach()
            for row in orchestrator.journal.unfinished():
                about = {"job": row.id, "name": row.name}
                _log.info("the next start resumes this job", extra={"about": about})


async def _stop_on_signals(
    received: AsyncIterator[int], stopping: trio.Event, hurry: trio.CancelScope
) -> None:
    _log.info("stopping on signal %d", await anext(received))
    sd_notify("STOPPING=1")
    stopping.set()
    await anext(received)
    hurry.cancel()


def _log_entry(orchestrator: Orchestrator, entry: ev.Entry) -> None:
    if not isinstance(entry, ev.Event):
        return
    begins = isinstance(entry, ev.Submitted | ev.Rejected)
    job = fold([entry]) if begins else orchestrator.known(entry.job)
    job = job or orchestrator.journal.job(entry.job)
    about = {"job": job.id, "run": job.run, "name": job.name, "state": job.state.value}
    verdict = {"verdict": job.verdict.value, "result": job.message} if job.verdict else {}
    _log.info("job", extra={"about": {**about, **verdict}})


def _address(listener: socket.socket) -> str:
    """The address, with a warning if it is not a loopback address."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
    return shown if local else f"{shown} (without TLS: the network can read the token)"


def page_url(listener: socket.socket) -> str:
    """Where a browser on this machine finds the page of a service that listens on TCP."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _tokens(endpoints: Endpoints) -> tuple[str, ...]:
    if endpoints.listen is None:
        return ()
    if endpoints.token_file is None:
        raise UsageError(
            f"--listen {endpoints.listen} needs --token-file: a client that can submit jobs"
            " can read what this user can read",
            resolution="create one with `(umask 077; openssl rand -hex 32 > token)`, and add"
            " --token-file token",
        )
    return read_tokens(endpoints.token_file)
