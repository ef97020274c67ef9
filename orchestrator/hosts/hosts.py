"""The hosts that a process uses, each opened when it is first asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from orchestrator.errors import UsageError, one_error
from orchestrator.hosts.heartbeat import Heartbeat
from orchestrator.hosts.members import Members
from orchestrator.hosts.settings import HostSettings, load_hosts, settings_of
from orchestrator.hosts.ssh_link import SshLink
from orchestrator.hosts.ssh_trees import SshTrees
from orchestrator.hosts.trees import LocalTrees, Trees
from orchestrator.hosts.trust import remotes_conf
from orchestrator.hosts.volumes import VolumeTrees
from orchestrator.incus import LOCAL, Host, Incus


@dataclass(frozen=True)
class OpenHost:
    """A host in use: how to reach its Incus, and its trees. `settings` is None for the local one.

    `members` are those of its cluster, if it is one; None if nobody looks for a cluster there.
    Nothing else of pikaci knows in which way a host is reached.
    """

    host: Host
    incus: Incus
    trees: Trees
    settings: HostSettings | None = None
    members: Members | None = None


class Hosts:
    """All hosts that there are, by name; made by `open_hosts`.

    Mistakes in the settings are an error only for those who want another host than the local one.
    """

    def __init__(
        self, local: Incus, named: Mapping[str, HostSettings] | UsageError, nursery: trio.Nursery
    ) -> None:
        self._named = named
        self._nursery = nursery
        self._local = local
        host = Host(project=local.project)
        self._open = {LOCAL: OpenHost(host, local, LocalTrees())}
        self._links: list[SshLink] = []

    def at(self, name: str) -> OpenHost:
        """The host with this name, "" for the local one. It need not be there, or answer.

        `HostUnknown` if the settings do not have it, another `UsageError` if they are wrong.
        """
        name = name or LOCAL
        if name not in self._open:
            self._open[name] = self._opened(name, self.settings(name))
        return self._open[name]

    def settings(self, name: str) -> HostSettings:
        """The settings of a host that is not the local one. Errors are those of `at`."""
        if isinstance(self._named, UsageError):
            raise self._named
        return settings_of(name, self._named)

    def close(self) -> None:
        """Close all connections."""
        for link in self._links:
            link.close()

    def _opened(self, name: str, settings: HostSettings) -> OpenHost:
        host = settings.host(name)
        if settings.ssh is None:
            incus = _watched(self._local.of(host, conf=remotes_conf()))
            members = _members(incus, settings)
            volumes = VolumeTrees(incus, host.pool, members)
            trees = LocalTrees() if settings.shared else volumes
            return OpenHost(host, incus, trees, settings, members)
        link = SshLink(name, settings, self._nursery)
        self._links.append(link)
        incus = _watched(self._local.of(host, link))
        members = _members(incus, settings)
        far_trees = SshTrees(link, VolumeTrees(incus, host.pool, members))
        return OpenHost(host, incus, far_trees, settings, members)


def _watched(incus: Incus) -> Incus:
    return incus.while_alive(Heartbeat(incus).present)


def _members(incus: Incus, settings: HostSettings) -> Members:
    # Without a directory that all members share, trees are only on the one that we log in to.
    only_there = settings.ssh is not None and settings.shared is None
    return Members(
        incus,
        target=settings.target or "",
        slots=settings.jobs,
        only_there=only_there,
        # Behind one address there may be several members, behind a socket there is one.
        same_member=settings.ssh is not None or settings.remote == LOCAL,
    )


@asynccontextmanager
async def open_hosts(local: Incus) -> AsyncIterator[Hosts]:
    """All hosts of the user's settings, and the `local` one, whose client configuration they share.

    When the block ends, all connections are closed; a cancellation that reaches it does not close
    them before, as jobs that are being cancelled need them.
    """

    def load() -> Mapping[str, HostSettings] | UsageError:
        try:
            return load_hosts()
        except UsageError as error:
            return error

    named = await trio.to_thread.run_sync(load)
    with one_error():
        async with trio.open_nursery() as nursery:
            hosts = Hosts(local, named, nursery)
            try:
                yield hosts
            finally:
                hosts.close()
