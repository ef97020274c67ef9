"""What running jobs may use of a host in total."""

from __future__ import annotations

from typing import NoReturn

import msgspec

from orchestrator.units import size
from states.errors import SpecError
from states.spec import JobSpec, size_in_bytes


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What running jobs may use of a host in total: slots (`jobs`), `cpus`, and `memory` in bytes.

    None is no limit. A job counts with the cpus and memory of its spec.
    """

    jobs: int
    cpus: int | None = None
    memory: int | None = None

    def check(self, spec: JobSpec) -> None:
        """Raise `SpecError` if the job could never start, because it asks for too much."""
        memory = size_in_bytes(spec.memory)
        if self.cpus is not None and spec.cpus > self.cpus:
            self._refuse("cpus", str(spec.cpus), str(self.cpus))
        if self.memory is not None and memory > self.memory:
            self._refuse("memory", size(memory), size(self.memory))

    def _refuse(self, key: str, asked: str, limit: str) -> NoReturn:
        raise SpecError(
            key, f"{asked} is more than all jobs together may use", allowed=f"at most {limit}"
        )
