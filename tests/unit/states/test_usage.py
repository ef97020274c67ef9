"""What a guest says that its job used: what can be true is kept, and what follows from it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from states import events as ev
from states.job import fold, step
from states.recorded import decode, encode
from states.spec import JobSpec
from states.usage import (
    MOST,
    Usage,
    asked_memory,
    cpus_used,
    has_too_much_memory,
    lacks_cpus,
    throttled,
    usage_of,
)
from tests.samples import PATH, sample_event, sample_life

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"cpu_ms": 5, "elapsed_ms": 9, "more": 1}, Usage(cpu_ms=5, elapsed_ms=9)),
        ({"cpu_ms": -1, "memory_peak_bytes": 7}, Usage(memory_peak_bytes=7)),
        ({"cpu_ms": 1.0, "memory_peak_bytes": 7}, Usage(memory_peak_bytes=7)),
        ({"cpu_ms": True, "memory_peak_bytes": 7}, Usage(memory_peak_bytes=7)),
        ({"cpu_ms": MOST, "memory_peak_bytes": MOST - 1}, Usage(memory_peak_bytes=MOST - 1)),
        ({"cpu_periods": 4, "cpu_throttled": 5}, Usage(cpu_periods=4)),
        ({"cpu_periods": 4, "cpu_throttled": 4}, Usage(cpu_periods=4, cpu_throttled=4)),
        ({"elapsed_ms": 9}, None),
        ({"cpu_ms": "5"}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("x", None),
    ],
)
def test_values_that_cannot_be_true_are_left_out(said: object, kept: Usage | None) -> None:
    """And only they are; nothing known is None."""
    assert kept == usage_of(said)


@given(st.dictionaries(st.sampled_from(Usage.__struct_fields__), JSON) | JSON)
def test_whatever_a_guest_says(said: Any) -> None:
    """It can be stored, and read again."""
    usage = usage_of(said)

    assert usage == msgspec.json.decode(msgspec.json.encode(usage), type=Usage | None)


def test_a_job_knows_what_it_used() -> None:
    """From its result; a new attempt has used nothing, and older entries say nothing of it."""
    usage = Usage(cpu_ms=5)
    *before, last = sample_life(*PATH)
    ended = msgspec.structs.replace(last, usage=usage)
    plain = encode(last)

    assert usage == step(fold(before), ended).usage
    assert ended == decode(encode(ended))
    old = {key: value for key, value in msgspec.json.decode(plain).items() if key != "usage"}
    assert last == decode(msgspec.json.encode(old))
    publishing = sample_event(ev.Publishing, len(before) + 1)
    published = step(fold(before), msgspec.structs.replace(publishing, usage=usage))
    lost = step(published, sample_event(ev.Lost, published.seq + 1))
    assert (usage, None) == (published.usage, lost.usage)


@pytest.mark.parametrize(
    ("usage", "part"),
    [
        (Usage(cpu_periods=100, cpu_throttled=80), 0.8),
        (Usage(cpu_periods=49, cpu_throttled=49), 0.0),
        (Usage(cpu_periods=100), 0.0),
        (Usage(), 0.0),
    ],
)
def test_throttling_counts_if_there_was_time_for_it(usage: Usage, part: float) -> None:
    assert part == throttled(usage)


def test_busy_cpus() -> None:
    """A job lacks CPUs if all it had were busy for most of its time."""
    spec = JobSpec(command="x", cpus=2)

    assert 1.5 == cpus_used(Usage(cpu_ms=15, elapsed_ms=10))
    assert None is cpus_used(Usage(cpu_ms=15)) is cpus_used(Usage(cpu_ms=15, elapsed_ms=0))
    assert 0.95 == lacks_cpus(Usage(cpu_ms=38_000, elapsed_ms=20_000), spec)
    assert 1.0 == lacks_cpus(Usage(cpu_ms=99_000, elapsed_ms=20_000), spec)
    assert 0.0 == lacks_cpus(Usage(cpu_ms=30_000, elapsed_ms=20_000), spec)
    assert 0.0 == lacks_cpus(Usage(cpu_ms=19_000, elapsed_ms=9_900), spec)


def test_too_much_memory() -> None:
    """Only of a job whose author chose its memory, and only if it is far too much."""
    little = Usage(memory_peak_bytes=1 << 27)

    assert has_too_much_memory(little, JobSpec(command="x", memory="1GiB"))
    assert not has_too_much_memory(little, JobSpec(command="x", memory="1000MiB"))
    assert not has_too_much_memory(little, JobSpec(command="x"))
    assert not has_too_much_memory(Usage(cpu_ms=1), JobSpec(command="x", memory="1GiB"))
    assert None is asked_memory(JobSpec(command="x", memory="half"))
    assert not has_too_much_memory(little, JobSpec(command="x", memory="half"))
