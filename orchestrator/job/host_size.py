"""Finds out the host's size, and fits specs to it.

Incus starts a guest even if its limits exceed what the host has. A limit of memory or disk beyond
that has no effect: the guest can use up the host. And a guest that asks for too many processors
silently gets fewer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import msgspec
import trio

from orchestrator import units
from orchestrator.incus import LOCAL, Deadline, Host, Incus
from orchestrator.incus.errors import IncusError
from orchestrator.job.submission import Judged
from states.errors import SpecError
from states.rules import CheckedSpec
from states.spec import JobSpec, size_in_bytes

# After this time the size counts as unknown, and specs are not checked.
ASK_SECS = 10.0
# Not forever: a pool may be enlarged, and a machine may get more memory.
KNOWN_SECS = 600.0
# One answer may have been lost; a host that forbids the queries is not asked at every submission.
UNKNOWN_SECS = 30.0
_DEFAULT = JobSpec(command="true")
_T = TypeVar("_T")
# For each default that exceeds the host: a warning, and the first job that it concerns.
Lowered = dict[str, str]


class HostSize(msgspec.Struct, frozen=True, kw_only=True):
    """A host's processors, and the bytes of its memory and storage pool. None is unknown."""

    host: Host
    cpus: int | None = None
    memory: int | None = None
    disk: int | None = None

    def holds(self, specs: Mapping[str, CheckedSpec]) -> bool:
        """Whether every spec fits unchanged."""
        return not any(self._too_much(checked.spec) for checked in specs.values())

    def fit(self, specs: Mapping[str, CheckedSpec]) -> tuple[dict[str, CheckedSpec], Lowered]:
        """The specs, by name, fitted to this host; and the defaults that were lowered.

        A default value that exceeds the host is lowered. `SpecError` for any other value that does.
        """
        fitted = dict(specs)
        lowered: Lowered = {}
        for name, checked in specs.items():
            spec = checked.spec
            less: dict[str, object] = {}
            for key, asked, most in self._too_much(spec):
                if getattr(spec, key) != getattr(_DEFAULT, key):
                    raise SpecError(
                        key,
                        f"{asked} of the job {name} is too much: {self._there(key)}",
                        allowed=f"write at most `{key} = {_toml(most)}`",
                    )
                less[key] = most
                line = f"{self._there(key)}: the default {key} is {most}, not {asked}"
                lowered.setdefault(line, name)
            if less:
                fitted[name] = CheckedSpec(msgspec.structs.replace(spec, **less))
        return fitted, lowered

    def _too_much(self, spec: JobSpec) -> list[tuple[str, int | str, int | str]]:
        """(key, requested value, maximum), for each value that exceeds the host."""
        found: list[tuple[str, int | str, int | str]] = []
        if self.cpus is not None and spec.cpus > self.cpus:
            found.append(("cpus", spec.cpus, self.cpus))
        for key, there in (("memory", self.memory), ("disk", self.disk)):
            asked = getattr(spec, key)
            if there is not None and size_in_bytes(asked) > there:
                found.append((key, asked, _size(there)))
        return found

    def _there(self, key: str) -> str:
        """What the host has of it, in words."""
        if key == "cpus":
            processors = units.counted(self.cpus or 0, "processor")
            return f"the host {self.host.remote} has {processors}"
        if key == "memory":
            return f"the host {self.host.remote} has {units.size(self.memory or 0)} of memory"
        return f"the storage pool {self.host.pool} has {units.size(self.disk or 0)}"


def _size(size: int) -> str:
    """A size as a spec writes it, rounded down to a MiB."""
    whole = max(1, size >> 20)
    return f"{whole >> 10}GiB" if whole % 1024 == 0 else f"{whole}MiB"


def _toml(value: int | str) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'


class _Total(msgspec.Struct, frozen=True):
    total: int = 0


class _Resources(msgspec.Struct, frozen=True):
    cpu: _Total = _Total()
    memory: _Total = _Total()


class _PoolResources(msgspec.Struct, frozen=True):
    space: _Total = _Total()


class _Environment(msgspec.Struct, frozen=True):
    # If unknown, assume a cluster, where the member that answers may be the smallest.
    server_clustered: bool = True


class _Server(msgspec.Struct, frozen=True):
    environment: _Environment = _Environment()


_DECODER = msgspec.json.Decoder(HostSize)


class HostSizes:
    """Caches the size of one host for some minutes.

    A file beside the client's configuration shares it with the user's other processes.
    """

    def __init__(self, incus: Incus, host: Host) -> None:
        self._incus = incus
        # Hosts share the directory.
        of_host = "" if host.name == LOCAL else f"-{host.name}"
        self._file = incus.conf / f"host-size{of_host}.json"
        self._host = host
        self._known = HostSize(host=host)
        self._until = float("-inf")
        self._lock = trio.Lock()

    async def fit(self, judged: Judged) -> tuple[Judged, Lowered]:
        """Apply `HostSize.fit` to a request's specs. Unchanged if the host's size is unknown.

        That is also the case for a cluster, whose members differ.
        """
        if await self.hold(judged.checked):
            return judged, {}
        fitted, lowered = self._known.fit(judged.checked)
        specs = {name: checked.spec for name, checked in fitted.items()}
        return replace(
            judged, request=replace(judged.request, specs=specs), checked=fitted
        ), lowered

    async def hold(self, specs: Mapping[str, CheckedSpec]) -> bool:
        """Whether every spec fits unchanged, as far as the host's size is known."""
        async with self._lock:
            asked = False
            if self._until == float("-inf"):
                await trio.to_thread.run_sync(self._recall, trio.current_time())
            if trio.current_time() >= self._until:
                asked = True
                await self._ask()
            if self._known.holds(specs):
                return True
            if not asked:
                await self._ask()
            if not self._known.holds(specs) and await self._is_cluster():
                self._known = HostSize(host=self._host)
            return self._known.holds(specs)

    async def _ask(self) -> None:
        machine, pool = _Resources(), _PoolResources()

        async def ask_machine() -> None:
            nonlocal machine
            machine = await self._query("/1.0/resources", _Resources)

        async def ask_pool() -> None:
            nonlocal pool
            path = f"/1.0/storage-pools/{self._host.pool}/resources"
            pool = await self._query(path, _PoolResources)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_machine)
            nursery.start_soon(ask_pool)
        self._known = HostSize(
            host=self._host,
            cpus=machine.cpu.total or None,
            memory=machine.memory.total or None,
            disk=pool.space.total or None,
        )
        whole = None not in (self._known.cpus, self._known.memory, self._known.disk)
        self._until = trio.current_time() + (KNOWN_SECS if whole else UNKNOWN_SECS)
        if whole:
            await trio.to_thread.run_sync(self._keep)

    def _recall(self, now: float) -> None:
        try:
            age = time.time() - self._file.stat().st_mtime
            size = _DECODER.decode(self._file.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return
        if 0 <= age < KNOWN_SECS and size.host == self._host:
            self._known, self._until = size, now + KNOWN_SECS - age

    def _keep(self) -> None:
        # Atomically. If it cannot be written, other processes just ask again.
        beside = self._file.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            beside.write_bytes(msgspec.json.encode(self._known))
            beside.replace(self._file)

    async def _is_cluster(self) -> bool:
        return (await self._query("/1.0", _Server)).environment.server_clustered

    async def _query(self, path: str, kind: type[_T]) -> _T:
        """The answer; an empty one if the host does not answer, or forbids the query."""
        deadline = Deadline(ASK_SECS)
        try:
            # In the project: a certificate that is restricted to it may not ask outside.
            return await self._incus.query(path, kind, deadline=deadline)
        except IncusError:
            return kind()
