"""A host that is reached over TLS: a private daemon, and a certificate for one project of it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.hosts.trust import add_remote, read_token
from orchestrator.incus import Incus
from tests.integration.private_daemon import POOL, PROJECT, PrivateDaemon, private_daemon

REMOTE = "far"


class TlsHost:
    """A daemon that listens, with a restricted project."""

    def __init__(self, daemon: PrivateDaemon) -> None:
        self.daemon = daemon
        self.pool, self.project = POOL, PROJECT
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        daemon.incus("config", "set", "core.https_address", self.address)
        self.restrict()

    def restrict(self, restricted: str = "true") -> None:
        self.daemon.incus("project", "set", self.project, f"restricted={restricted}")

    def token(self, project: str = PROJECT) -> str:
        """What the host's own people do, and what that prints."""
        name = f"pikaci-{len(self.trusted())}"
        return self.daemon.incus(
            "config", "trust", "add", name, "--restricted", "--projects", project
        )

    def trusted(self) -> list[str]:
        """The lines of the certificates that it trusts, and of the tokens that it knows."""
        trust = ("config", "trust")
        known = self.daemon.incus(*trust, "list", "-f", "csv")
        return [*known.split(), *self.daemon.incus(*trust, "list-tokens", "-f", "csv").split()]

    async def reached(self, conf: Path, *, name: str = REMOTE, address: str = "") -> Incus:
        """The host by a remote that is added to a configuration of the incus command."""
        incus = Incus(conf, project=self.project, remote=name)
        token = read_token(self.token())
        await add_remote(incus, token, address=address, say=lambda line: None)
        return incus

    def volumes(self) -> list[str]:
        """The names of the custom volumes of the project."""
        listed = self.daemon.incus(
            "storage",
            "volume",
            "list",
            self.pool,
            "--project",
            self.project,
            "-f",
            "csv",
            "-c",
            "tn",
        )
        return sorted(re.findall("^custom,(.*)$", listed, re.MULTILINE))

    def clear(self) -> None:
        """Delete what a test left."""
        for name in self.daemon.instances():
            self.daemon.incus("delete", "--force", "--project", self.project, name)
        for name in self.volumes():
            self.daemon.incus(
                "storage", "volume", "delete", self.pool, name, "--project", self.project
            )


@contextmanager
def tls_host(*, pool_size: str = "3GiB") -> Iterator[TlsHost]:
    """A host that answers; nothing of it is left after the block."""
    with private_daemon(pool_size=pool_size) as daemon:
        host = TlsHost(daemon)
        try:
            yield host
        finally:
            host.clear()


@pytest.fixture(scope="session")
def far_of_all() -> Iterator[TlsHost]:
    """One for all tests: it takes seconds to make."""
    with tls_host() as made:
        yield made


@pytest.fixture
def far(far_of_all: TlsHost) -> Iterator[TlsHost]:
    """A host over TLS, without instances and volumes."""
    yield far_of_all
    far_of_all.restrict()
    far_of_all.clear()
