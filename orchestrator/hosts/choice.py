"""Which hosts a job may run on: the one that it names, or those that its submitter names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestrator.errors import UsageError
from orchestrator.hosts.settings import find_host
from orchestrator.incus import Host
from states.errors import SpecError
from states.spec import JobSpec


class HostChoice:
    """The hosts for the jobs of one submission: `hosts`, in order, for each that names none.

    `find` returns the host that a job names. It raises a `UsageError` if there is none.
    """

    def __init__(self, hosts: Sequence[Host], find: Callable[[str], Host] = find_host) -> None:
        self.hosts = tuple(hosts)
        self._find = find

    @classmethod
    def named(cls, names: Sequence[str], find: Callable[[str], Host] = find_host) -> HostChoice:
        """The choice among the hosts with these names. `UsageError` if one does not exist."""
        return cls([find(name) for name in dict.fromkeys(names)], find)

    def of(self, spec: JobSpec) -> tuple[Host, ...]:
        """The hosts that the job may run on. `SpecError` if it names one that does not exist."""
        if spec.host is None:
            return self.hosts
        for host in self.hosts:
            if host.name == spec.host:
                return (host,)
        try:
            return (self._find(spec.host),)
        except UsageError as error:
            raise SpecError(
                "host", f"cannot be used: {error.brief}", allowed=error.resolution
            ) from None


HERE = HostChoice([Host()])
