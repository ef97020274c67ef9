"""What a submission asks the hosts of its jobs: whether they have the images and networks, and how
large they are.

A job that names no host may have several. Those that cannot take it are left out, with the reason;
one that does not answer stays, if another can take the job.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import trio

from orchestrator.errors import one_error
from orchestrator.incus import Host
from orchestrator.job.context import Context, JobHost
from orchestrator.job.host_names import check_host_names
from orchestrator.job.host_size import HostSizes, Lowered
from orchestrator.job.placing import keep_images_together, left_out
from orchestrator.job.submission import Judged, part_of
from states.errors import PikaciError, SpecError
from states.mistakes import one_of
from states.rules import CheckedSpec


class Door:
    """Asks the hosts of one process, for the submissions that come in there."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sizes: dict[str, HostSizes] = {}

    async def check(self, judged: Judged) -> Judged:
        """The request with the hosts that can take its jobs, and with specs fitted to their sizes.

        `SpecError` for what no host of a job has, or what is too much for it. If no host answers
        that may take it, the error of one: `DaemonUnreachable`, `HostRefused` or `IncusMissing`.
        """
        hosts, told = dict(judged.hosts), dict(judged.told)
        for several in {some for some in hosts.values() if len(some) > 1}:
            names = [name for name, some in hosts.items() if some == several]
            hosts.update(await self._narrow(judged, names, several, told))
        if wrong := keep_images_together(judged.request.specs, hosts, told):
            raise one_of([*wrong.values()])
        alone: dict[Host, list[str]] = {}
        for name, (first, *more) in hosts.items():
            if not more:
                alone.setdefault(first, []).append(name)
        checked, lowered = dict(judged.checked), dict(told)
        with one_error():
            async with trio.open_nursery() as nursery:
                for host, names in alone.items():
                    part = part_of(judged, names)
                    nursery.start_soon(self._check_at, host, part, checked, lowered)
        specs = {name: one.spec for name, one in checked.items()}
        return replace(
            judged,
            request=replace(judged.request, specs=specs),
            checked=checked,
            hosts=hosts,
            told=lowered,
        )

    async def _check_at(
        self, host: Host, part: Judged, checked: dict[str, CheckedSpec], lowered: Lowered
    ) -> None:
        """Check jobs that run on this host, and no other."""
        refused: list[SpecError] = []

        async def fit() -> None:
            try:
                fitted, lines = await self._size(host).fit(part)
            except SpecError as error:
                refused.append(error)
                return
            checked.update(fitted.checked)
            lowered.update(lines)

        there = self._context.at(host.name)
        with one_error():
            async with trio.open_nursery() as nursery:
                # At the same time: the queries take as long as each other.
                nursery.start_soon(fit)
                nursery.start_soon(_learn, there)
                request = part.request
                await check_host_names(there.images, request.specs, git=request.git)
        for error in refused:
            raise error

    async def _narrow(
        self, judged: Judged, names: Sequence[str], several: Sequence[Host], told: Lowered
    ) -> dict[str, tuple[Host, ...]]:
        """The hosts of those that can take the jobs, by job, which all have the same choice."""
        able: dict[str, list[Host]] = {name: [] for name in names}
        wrong: dict[str, list[tuple[Host, SpecError]]] = {name: [] for name in names}
        away: dict[Host, PikaciError] = {}
        found: dict[Host, dict[str, SpecError]] = {}

        async def ask(host: Host) -> None:
            known = self._context.silent.fault(host.name)
            if known is not None:
                away[host] = known
                return
            try:
                found[host] = await self._wrong_at(host, part_of(judged, names))
            except PikaciError as error:
                away[host] = error

        with one_error():
            async with trio.open_nursery() as nursery:
                for host in several:
                    nursery.start_soon(ask, host)
        for host in several:
            for name in names if host in found else ():
                if name in found[host]:
                    wrong[name].append((host, found[host][name]))
                else:
                    able[name].append(host)
        for name in names:
            if not able[name]:
                for host in several:
                    if host in away:
                        raise away[host]
                raise one_of([error for _, error in wrong[name]])
            told.update({left_out(name, host, error): name for host, error in wrong[name]})
        found_hosts = {}
        for name in names:
            spec = judged.checked[name]
            large = [one for one in able[name] if await self._size(one).hold({name: spec})]
            stay = [*(large or able[name][:1]), *(away if large else ())]
            for host in able[name]:
                if host not in stay:
                    told[left_out(name, host, "its cpus, memory or disk are too small")] = name
            found_hosts[name] = tuple(host for host in several if host in stay)
        return found_hosts

    async def _wrong_at(self, host: Host, part: Judged) -> dict[str, SpecError]:
        """Why the host cannot take some of the jobs. Other errors say that it does not answer."""
        there, git = self._context.at(host.name), part.request.git
        found: dict[str, SpecError] = {}
        async with self._context.silent.asking(host.name):
            await _learn(there)
            try:
                await check_host_names(there.images, part.request.specs, git=git)
            except SpecError:
                for name, spec in part.request.specs.items():
                    try:
                        await check_host_names(there.images, {name: spec}, git=git)
                    except SpecError as error:
                        found[name] = error
        return found

    def _size(self, host: Host) -> HostSizes:
        if host.name not in self._sizes:
            self._sizes[host.name] = HostSizes(self._context.at(host.name).incus, host)
        return self._sizes[host.name]


async def _learn(there: JobHost) -> None:
    """Find out whether the host's limit of jobs is that of each member."""
    if there.jobs is not None and there.members is not None:
        with suppress(PikaciError):
            await there.members.ask()
