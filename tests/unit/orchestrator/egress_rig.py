"""The real guest program, a link to it and the proxy, all on this machine; and servers to reach."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from orchestrator.contract import guest_files
from orchestrator.egress.dial import Dialer
from orchestrator.egress.host_proxy import HostProxies
from orchestrator.egress.ledger import Entry, Ledger
from orchestrator.egress.link import Link
from orchestrator.egress.proxy import Proxy
from orchestrator.incus import spawn_process
from states.egress import Rules

KEY = "jobs.deps.egress"
Handler = Callable[[trio.SocketStream], Awaitable[None]]


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Way:
    """A way out with these rules: `port` is the guest's, `entries` what the ledger wrote."""

    base: Path
    rules: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    secs: float = 5.0
    port: int = field(default_factory=free_port)
    entries: list[Entry] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)

    def program(self) -> Path:
        """The guest's program, with a directory of this test's own."""
        program = self.base / "pikaci-egress"
        text = (guest_files() / "pikaci-egress").read_text()
        assert '"/run/pikaci-egress"' in text
        program.write_text(text.replace("/run/pikaci-egress", str(self.base / "run")))
        return program

    def argv(self, verb: str) -> list[str]:
        """A command line of the guest's program."""
        program = [sys.executable, "-IS", str(self.program())]
        return [*program, verb, str(self.port), f"{self.secs:g}"]

    async def carry(self, task_status: trio.TaskStatus[Link] = trio.TASK_STATUS_IGNORED) -> None:
        """Be one exec of the guest's program, until it ends."""
        ledger = Ledger(self.entries.append)
        dialer = Dialer(Rules(self.rules), HostProxies(self.environment), KEY)
        async with trio.open_nursery() as streams:
            link = Link(streams, Proxy(dialer, ledger).serve)
            self.links.append(link)

            async def greeted() -> None:
                await link.greeted.wait()
                task_status.started(link)

            streams.start_soon(greeted)
            try:
                ended = await spawn_process(
                    self.argv("carry"),
                    env={},
                    stdin=b"",
                    sink=link.feed,
                    feed=link.send_to,
                )
                self.stderr.append(ended.stderr)
            finally:
                ledger.close()
                streams.cancel_scope.cancel()

    async def client(self) -> trio.SocketStream:
        """A connection to the guest's port."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, request: bytes) -> bytes:
        """Send this to the guest's port; all that comes until the end."""
        async with await self.client() as stream:
            await stream.send_all(request)
            with trio.fail_after(20):
                return await read_all(stream)

    def stop(self) -> None:
        """End the listener, as the end of its guest does."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if str(self.base / "pikaci-egress").encode() in command:
                os.kill(int(process.name), signal.SIGKILL)


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """All that comes; what came before an error, with its mark."""
    data = b""
    try:
        while chunk := await stream.receive_some():
            data += chunk
    except trio.BrokenResourceError:
        data += b"<reset>"
    return data


@asynccontextmanager
async def open_way(base: Path, *rules: str, **options: object) -> AsyncIterator[Way]:
    """A way out whose exec runs."""
    assert shutil.which("python3")
    base.mkdir(exist_ok=True)
    way = Way(base, rules, **options)  # type: ignore[arg-type]
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(20):
                await nursery.start(way.carry)
            yield way
            nursery.cancel_scope.cancel()
    finally:
        way.stop()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server on the loopback; its port."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def handle(stream: trio.SocketStream) -> None:
            try:
                await handler(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
