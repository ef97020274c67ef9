"""What running jobs may use of a host in total, and what is kept ready for the next ones."""

from __future__ import annotations

import msgspec

from orchestrator.errors import UsageError
from orchestrator.units import size
from states.errors import SpecError
from states.mistakes import raise_all
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
        found = []
        if self.cpus is not None and spec.cpus > self.cpus:
            found.append(_more("cpus", str(spec.cpus), str(self.cpus)))
        if self.memory is not None and memory > self.memory:
            found.append(_more("memory", size(memory), size(self.memory)))
        raise_all(found)


MAX_WARM = 64
MAX_IDLE_SECS = 7 * 24 * 3600.0


class WarmGuests(msgspec.Struct, frozen=True, kw_only=True):
    """How many guests are kept booted on each host before their jobs, and for how many seconds.

    They are for jobs like the last `size` of the host, for `idle_secs` after each of these began.
    """

    size: int
    idle_secs: float = 600.0

    def __post_init__(self) -> None:
        if self.size < 1 or not self.idle_secs > 0:
            raise UsageError(
                f"{self.size} warm guests for {self.idle_secs:g} s: both must be positive",
                resolution="for no warm guests, leave the setting out",
            )
        if self.size > MAX_WARM or self.idle_secs > MAX_IDLE_SECS:
            raise UsageError(
                f"{self.size} warm guests for {self.idle_secs:g} s are too many, or for too long",
                resolution=f"at most {MAX_WARM} guests, for at most {MAX_IDLE_SECS:g} s",
            )


def _more(key: str, asked: str, limit: str) -> SpecError:
    return SpecError(
        key, f"{asked} is more than all jobs together may use", allowed=f"at most {limit}"
    )
