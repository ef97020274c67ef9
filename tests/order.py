"""The order in which several workers take the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

# The last tests are short ones: no worker is left alone with a long one.
SPREAD = 0.9


def spread(tests: Sequence[T], waits: Callable[[T], bool]) -> list[T]:
    """The tests that mostly wait, evenly among those that keep a processor busy.

    Else all workers wait at first, and later have too few processors. Both kinds keep their order.
    """
    waiting = [test for test in tests if waits(test)]
    busy = [test for test in tests if not waits(test)]
    step = SPREAD * len(busy) / max(1, len(waiting))
    places = [(number * step, test) for number, test in enumerate(waiting)]
    places += [(float(number), test) for number, test in enumerate(busy)]
    return [test for _, test in sorted(places, key=lambda place: place[0])]
