"""Sizes and times: close to the truth, in order, and as a person writes them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.units import age, counted, duration, seconds, size
from states.spec import size_in_bytes

UNITS = {"ms": Fraction(1, 1000), "s": 1, "min": 60, "h": 3600, "d": 86_400}
SIZES = {"B": 1, **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGTPE", 1)}}
SECS = st.one_of(
    st.floats(0, 1e7), st.sampled_from([0.9995, 9.95, 59.5, 3599.5, 172_770.0, 172_799.0])
)
COUNTS = st.one_of(st.integers(0, 1 << 69), st.builds(pow, st.just(2), st.integers(0, 69)))


def read(text: str, units: dict[str, Fraction] | dict[str, int]) -> tuple[Fraction, Fraction]:
    """The value that a text shows, and what its last digit counts for."""
    words = text.split()
    pairs = [(words[n], Fraction(units[words[n + 1]])) for n in range(0, len(words), 2)]
    last, unit = pairs[-1]
    value = sum((Fraction(number) * unit for number, unit in pairs), Fraction(0))
    return value, unit * Fraction(Decimal((0, (1,), Decimal(last).as_tuple().exponent)))  # type: ignore[arg-type]


@given(SECS)
def test_a_duration_is_as_close_as_its_last_digit_says(secs: float) -> None:
    """What is left out is at most half of that; a unit that is not shown has nothing in it."""
    text = duration(secs)
    shown, digit = read(text, UNITS)
    if text.endswith(("min", "h", "d")):  # "1 h" is what "1 h 0 min" would say
        digit = Fraction({"min": 1, "h": 60, "d": 3600}[text.split()[-1]])
        if len(text.split()) == 4:
            digit = Fraction(UNITS[text.split()[-1]])
    assert abs(shown - Fraction(secs)) <= digit / 2 + Fraction(1, 10**8)


@given(SECS, SECS)
def test_what_took_longer_never_looks_shorter(one: float, other: float) -> None:
    """Over all units."""
    low, high = sorted((one, other))
    assert read(duration(low), UNITS)[0] <= read(duration(high), UNITS)[0]


@given(COUNTS)
def test_a_size_is_as_close_as_one_digit_behind_the_point(count: int) -> None:
    """Bytes are exact."""
    text = size(count)
    shown, _ = read(text, SIZES)
    unit = SIZES[text.split()[1]]
    assert abs(shown - count) <= (0 if unit == 1 else Fraction(unit, 20))


@given(COUNTS, COUNTS)
def test_what_is_larger_never_looks_smaller(one: int, other: int) -> None:
    """Over all units."""
    low, high = sorted((one, other))
    assert read(size(low), SIZES)[0] <= read(size(high), SIZES)[0]


@given(st.integers(1, 1023), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_a_size_is_shown_as_it_was_written(number: int, unit: str) -> None:
    """A limit in a message is the one in the job file."""
    assert f"{number} {unit}" == size(size_in_bytes(f"{number}{unit}"))


@pytest.mark.parametrize(
    ("secs", "words"),
    [
        (-3, "0 ms"), (0.004, "4 ms"), (0.25, "250 ms"), (0.9996, "1.0 s"), (4.2, "4.2 s"),
        (4.25, "4.3 s"), (9.97, "10 s"), (59.6, "1 min"), (252, "4 min 12 s"), (3600, "1 h"),
        (7_500, "2 h 5 min"), (200_000, "2 d 8 h"),
    ],
)  # fmt: skip
def test_durations_have_the_precision_that_one_cares_for(secs: float, words: str) -> None:
    """Two units at most."""
    assert words == duration(secs)


def test_sizes_are_in_the_greatest_unit() -> None:
    """A whole number of them has no point."""
    counts = (0, 1023, 1024, 183_422, 2_481_000, 1 << 33, 3 << 29)
    assert ["0 B", "1023 B", "1 KiB", "179.1 KiB", "2.4 MiB", "8 GiB", "1.5 GiB"] == [
        size(count) for count in counts
    ]


@pytest.mark.parametrize(
    ("secs", "expected"),
    [(-5, "now"), (4, "now"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"),
     (172_799, "47 h"), (259_200, "3 d")],
)  # fmt: skip
def test_ages(secs: int, expected: str) -> None:
    """In the greatest unit; a clock that is behind makes nothing younger than now."""
    assert expected == age(secs)


def test_a_column_has_its_points_below_each_other() -> None:
    """Of differences too."""
    assert ["    0.004 s", "  112.500 s"] == [seconds(0.004), seconds(112.5)]
    assert ["   +0.100 s", "   -2.000 s"] == [seconds(one, signed=True) for one in (0.1, -2)]


def test_one_thing_is_not_many() -> None:
    """None are many."""
    assert ["0 runs", "1 run", "2 runs"] == [counted(number, "run") for number in range(3)]
