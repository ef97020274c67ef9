"""What jobs may take of a host at once."""

from __future__ import annotations

from typing import NoReturn

import msgspec

from orchestrator.units import size
from states.errors import SpecError
from states.spec import JobSpec, size_in_bytes


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs may take of a host at once: their number, their `cpus`, and `memory` in bytes.

    None is no limit. A job counts with what its spec asks for.
    """

    jobs: int
    cpus: int | None = None
    memory: int | None = None

    def check(self, spec: JobSpec) -> None:
        """Raise `SpecError` when the job could never begin here."""
        memory = size_in_bytes(spec.memory)
        if self.cpus is not None and spec.cpus > self.cpus:
            self._refuse("cpus", str(spec.cpus), str(self.cpus))
        if self.memory is not None and memory > self.memory:
            self._refuse("memory", size(memory), size(self.memory))

    def _refuse(self, key: str, asked: str, limit: str) -> NoReturn:
        raise SpecError(key, f"{asked} is more than jobs may have here", allowed=f"at most {limit}")
