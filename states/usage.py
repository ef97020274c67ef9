"""What a job used of its guest, as the guest's runner counted it. Pure.

All of it comes from the guest, which may be hostile: a value that cannot be true is left out, and
no value changes a verdict.
"""

# Annotations are not text here: msgspec would compile each of them, at every start.
from typing import Any

import msgspec

from states.spec import JobSpec, size_in_bytes

# The most that a value may be: JSON's readers are exact up to here.
MOST = 1 << 53
# Hints: a job that used so small a part of the memory that it asked for; that was throttled, or
# whose CPUs were all busy, for so large a part of its time, if it ran long enough.
LITTLE_MEMORY = 1 / 8
OFTEN_THROTTLED = 0.5
ALWAYS_BUSY = 0.9
LEAST_PERIODS = 50
LEAST_BUSY_MS = 10_000
_DEFAULT = JobSpec(command="")


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was used in the job's guest, from about the job's start; None where it is not known.

    `elapsed_ms` is how long that was, and `cpu_ms` the time of all CPUs together. In
    `cpu_throttled` of `cpu_periods` the kernel held the guest at its limit. `memory_peak_bytes`
    includes cached files, and `processes_peak` threads; both are the guest's, with what its system
    and the runner take. `read_bytes` and `written_bytes` are those of the block device with the
    most.
    """

    elapsed_ms: int | None = None
    cpu_ms: int | None = None
    cpu_periods: int | None = None
    cpu_throttled: int | None = None
    memory_peak_bytes: int | None = None
    processes_peak: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


def usage_of(said: object) -> Usage | None:
    """The usage in a guest's words, decoded from JSON: without the values that are wrong.

    None if nothing is left.
    """
    if not isinstance(said, dict):
        return None
    known: dict[str, Any] = {
        name: said[name] for name in Usage.__struct_fields__ if _counts(said.get(name))
    }
    if known.get("cpu_throttled", 0) > known.get("cpu_periods", 0):
        del known["cpu_throttled"]
    return Usage(**known) if known.keys() - {"elapsed_ms"} else None


def _counts(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST


def throttled(usage: Usage) -> float:
    """The part of its time, 0 to 1, in which the kernel held the guest at its CPU limit."""
    if not usage.cpu_periods or usage.cpu_periods < LEAST_PERIODS:
        return 0.0
    return (usage.cpu_throttled or 0) / usage.cpu_periods


def cpus_used(usage: Usage) -> float | None:
    """How many CPUs were busy, on average; None if that is not known."""
    if usage.cpu_ms is None or not usage.elapsed_ms:
        return None
    return usage.cpu_ms / usage.elapsed_ms


def lacks_cpus(usage: Usage, spec: JobSpec) -> float:
    """The part of its time, 0 to 1, in which all the job's CPUs were busy; 0 if it is not large."""
    used = cpus_used(usage)
    if used is None or (usage.elapsed_ms or 0) < LEAST_BUSY_MS:
        return 0.0
    part = used / spec.cpus
    return min(part, 1.0) if part >= ALWAYS_BUSY else 0.0


def asked_memory(spec: JobSpec) -> int | None:
    """The bytes of memory that the job was to have; None for a spec of a form that is no longer."""
    try:
        return size_in_bytes(spec.memory)
    except (KeyError, ValueError):
        return None


def has_too_much_memory(usage: Usage, spec: JobSpec) -> bool:
    """Whether its author asked for far more memory than the job used. The default is nobody's."""
    asked, peak = asked_memory(spec), usage.memory_peak_bytes
    if asked is None or peak is None or spec.memory == _DEFAULT.memory:
        return False
    return peak <= LITTLE_MEMORY * asked
