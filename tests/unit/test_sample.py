"""The sample of fault points that a run of all tests tries."""

from __future__ import annotations

from tests.kill.sample import sample

MOMENTS = ("before", "during", "after")
POINTS = [
    f"incus:{effect}:{at}" for effect in ("create", "start", "run", "delete") for at in MOMENTS
]


def test_the_parts_together_have_every_point_once() -> None:
    for of in (1, 2, 4, 5):
        parts = [sample(POINTS, part=part, of=of) for part in range(of)]

        assert sorted(POINTS) == sorted(point for part in parts for point in part)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_part_has_all_moments_and_does_not_depend_on_the_order() -> None:
    """A process may come by two points in either order; each run must try the same ones."""
    for of in (2, 4):
        for part in range(of):
            tried = sample(POINTS, part=part, of=of)

            assert set(MOMENTS) == {point.rpartition(":")[2] for point in tried}
            assert tried == sample(POINTS[::-1], part=part, of=of)
