"""Reads what a job used over its time, from the file beside its log.

A line for each sample: milliseconds since the job's start, CPU milliseconds since then, bytes of
memory without cached files, processes, bytes read and bytes written since the start; `-` stands for
what is not known. The lines come from the guest: `parse` takes no more than it must, and nothing
depends on them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from states.usage import MOST

# The runner writes some 60 bytes a sample, and 256 of them for each doubling of a job's time.
MAX_BYTES = 512 * 1024
MAX_SAMPLES = 5000
_UNKNOWN = b"-"
_DIGITS = 18


class Sample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was counted `ms` after the job's start; None is not known."""

    ms: int
    cpu_ms: int | None
    memory_bytes: int | None
    processes: int | None
    read_bytes: int | None
    written_bytes: int | None


def samples_path(log: Path) -> Path:
    """The path of the samples of a log's job."""
    return log.with_suffix(".usage")


def parse(data: bytes) -> list[Sample]:
    """The samples up to the first line that cannot be true; what only counts up, never falls."""
    samples: list[Sample] = []
    for line in data[:MAX_BYTES].splitlines()[:MAX_SAMPLES]:
        values = [_number(word) for word in line[:256].split(b" ")]
        if len(values) != len(Sample.__struct_fields__) or -1 in values:
            break
        ms, *rest = values
        if ms is None or (samples and ms <= samples[-1].ms):
            break
        sample = Sample(ms=ms, **dict(zip(Sample.__struct_fields__[1:], rest, strict=True)))
        if samples and _falls(samples[-1], sample):
            break
        samples.append(sample)
    return samples


def _number(word: bytes) -> int | None:
    """The number, None if it is not known, -1 for what is no number."""
    if word == _UNKNOWN:
        return None
    if not word.isdigit() or len(word) > _DIGITS or int(word) >= MOST:
        return -1
    return int(word)


def _falls(one: Sample, other: Sample) -> bool:
    pairs = (
        (one.cpu_ms, other.cpu_ms),
        (one.read_bytes, other.read_bytes),
        (one.written_bytes, other.written_bytes),
    )
    return any(a is not None and b is not None and b < a for a, b in pairs)


def text(samples: Iterable[Sample]) -> bytes:
    """The samples as lines, as `parse` reads them."""
    rows = (msgspec.structs.astuple(one) for one in samples)
    return b"".join(
        b" ".join(_UNKNOWN if number is None else b"%d" % number for number in row) + b"\n"
        for row in rows
    )


def read_samples(log: Path) -> Sequence[Sample]:
    """The samples of a log's job; none if there is no file, or it cannot be read."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(samples_path(log), flags)
    except OSError:
        return ()
    try:
        return parse(os.read(file, MAX_BYTES))
    except OSError:
        return ()
    finally:
        os.close(file)


def cpus_over_time(samples: Sequence[Sample]) -> list[tuple[int, float]]:
    """How many CPUs were busy, each with the end of the time, in ms, that it is the average of."""
    known = [(one.ms, one.cpu_ms) for one in samples if one.cpu_ms is not None]
    before = [(0, 0), *known]
    return [
        (ms, (cpu - cpu_before) / (ms - ms_before))
        for (ms_before, cpu_before), (ms, cpu) in zip(before, known, strict=False)
        if ms > ms_before
    ]
