"""What a job that reaches the outside gets of its host: certificates, mirrors, and a way out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from orchestrator.attempt import certificates
from orchestrator.attempt.attempt import Attempt
from orchestrator.attempt.outside import reaches_outside
from orchestrator.attempt.way_out import WayOut
from orchestrator.egress.host_proxy import HostProxies
from orchestrator.egress.ledger import Entry
from orchestrator.hosts import Tree
from orchestrator.job.context import Context, JobHost
from orchestrator.job.mirrors import Mirrors, host_mirrors
from orchestrator.job.record import Record
from orchestrator.slow_files import look_up
from states.egress import authority
from states.lifecycle import State

MOST_NAMED = 3
CERTIFICATES = "certificates"


def certificates_tree(directory: Path) -> Tree:
    """The directory as a tree; it changes when the authorities do, and so does the name."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if not path.name.startswith("."):
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return Tree(f"{CERTIFICATES}-{digest.hexdigest()[:32]}", directory)


class Outside:
    """The outside of one job, as far as its spec lets it reach there."""

    def __init__(self, context: Context, record: Record) -> None:
        self._context = context
        self._record = record
        self._mirrors: Mirrors | None = None
        self._refused: dict[str, None] = {}
        # Until this process publishes them, rely on the one that made the guest.
        self._certificates: Tree | None = Tree(CERTIFICATES, context.root.certificates)

    @property
    def _there(self) -> JobHost:
        # Not before it is asked for: a job with a choice has no host at first.
        return self._context.at(self._record.job.host)

    @property
    def is_unknown(self) -> bool:
        """Whether the command's plan needs what only `look` finds."""
        spec = self._record.job.spec
        return spec is not None and spec.host_mirrors and self._mirrors is None

    @property
    def of_plan(self) -> dict[str, Any]:
        """The fields of a plan's context for it."""
        mirrors, there = self._mirrors or Mirrors(), self._certificates
        return {
            "certificates": self._there.trees.place(there) if there else "",
            "mirrors": dict(mirrors.variables),
            "mirror_hosts": mirrors.hosts,
        }

    @property
    def trees(self) -> list[Tree]:
        """What the guest mounts of it."""
        spec = self._record.job.spec
        assert spec is not None
        return [self._certificates] if self._certificates and reaches_outside(spec) else []

    async def look(self) -> None:
        """Find out what the job gets of its host. Raises a `PikaciError` for wrong settings."""
        spec = self._record.job.spec
        assert spec is not None
        if not reaches_outside(spec):
            return
        directory = self._context.root.certificates

        def look() -> tuple[Mirrors, Tree | None]:
            if spec.egress:
                HostProxies(os.environ)  # raises what would fail every connection
            mirrors = Mirrors()
            if spec.host_mirrors:
                mirrors = host_mirrors(os.environ)
            published = certificates.publish(directory, os.environ, mirrors.sources)
            return mirrors, certificates_tree(Path(published)) if published else None

        self._mirrors, self._certificates = await look_up("the host's settings", look)

    @property
    def hint(self) -> str:
        """What to do about connections that were refused, "" if none was."""
        if not self._refused:
            return ""
        named = ", ".join(self._refused)
        return (
            f"egress to {named} was refused: `pikaci trace {self._record.job.name}` shows every"
            " connection, and the egress to allow them"
        )

    def _connected(self, entry: Entry) -> None:
        if entry.refused and entry.host and len(self._refused) < MOST_NAMED:
            self._refused[authority(entry.host, entry.port)] = None
        self._record.connected(entry)

    @asynccontextmanager
    async def way_out(self, attempt: Attempt, is_ready: trio.Event) -> AsyncIterator[WayOut | None]:
        """The way out of a job with `egress`, from when its guest is ready; None for any other."""
        if not attempt.plan.egress:
            yield None
            return
        record = self._record
        way_out = WayOut(
            attempt.plan,
            self._there.reaching(attempt.plan.member).observed(record.called),
            f"jobs.{record.job.name}.egress",
            write=self._connected,
            gap=record.gap,
            warn=record.warn,
        )
        async with way_out.open(is_ready, running=record.job.state is State.RUNNING):
            yield way_out
