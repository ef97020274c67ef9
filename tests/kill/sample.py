"""Which of many fault points a run of all tests tries: a part of them, the same ones every time."""

from __future__ import annotations

from collections.abc import Sequence


def sample(points: Sequence[str], *, part: int, of: int) -> list[str]:
    """Every `of`-th point, from number `part` on, in the order of their names.

    A point before an effect stands beside those during and after it: with an `of` that is no
    multiple of 3, the parts have all three of one effect or another. Together, the parts have all
    points once. The order in which a process comes by them does not matter, as it may differ.
    """
    return sorted(points)[part::of]
