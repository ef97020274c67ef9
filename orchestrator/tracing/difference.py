"""Two jobs side by side: their paths, their outcomes, and what took longer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.tracing.parts import parts
from orchestrator.tracing.timeline import Kind, Timeline

# Smaller differences are noise.
NOTABLE_SECS = 0.1
NOTABLE_RATIO = 1.2


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that both jobs spent in a state, or in an `effect` in it, over all attempts."""

    state: str
    effect: str
    one: float
    other: float

    @property
    def more(self) -> float:
        """How many seconds longer the other took; negative if it was faster."""
        return self.other - self.one

    @property
    def notable(self) -> bool:
        low, high = sorted((self.one, self.other))
        return high - low >= NOTABLE_SECS and high >= NOTABLE_RATIO * low


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Two jobs compared; `common` is the length of the beginning that their paths share."""

    one: Timeline
    other: Timeline
    common: int
    rows: tuple[Row, ...]

    @property
    def same_outcome(self) -> bool:
        return (self.one.job.state, self.one.verdict) == (self.other.job.state, self.other.verdict)

    @property
    def same_path(self) -> bool:
        return self.common == len(self.one.states) == len(self.other.states)

    @property
    def notable(self) -> bool:
        """Whether any difference is worth a look."""
        return not (self.same_outcome and self.same_path) or any(row.notable for row in self.rows)


def difference(one: Timeline, other: Timeline) -> Difference:
    """Compare two jobs."""
    paths = [[span.name for span in job.states] for job in (one, other)]
    common = next(
        (n for n, (a, b) in enumerate(zip(*paths, strict=False)) if a != b), min(map(len, paths))
    )
    return Difference(one=one, other=other, common=common, rows=tuple(_rows(one, other)))


def _rows(one: Timeline, other: Timeline) -> Sequence[Row]:
    times = (_times(one), _times(other))
    rows = []
    for state in dict.fromkeys(state for job in times for state, _ in job):
        effects = dict.fromkeys(name for job in times for found, name in job if found == state)
        for effect in effects:
            key = (state, effect)
            rows.append(
                Row(
                    state=state,
                    effect=effect,
                    one=times[0].get(key, 0.0),
                    other=times[1].get(key, 0.0),
                )
            )
    return rows


def _times(job: Timeline) -> dict[tuple[str, str], float]:
    """Seconds by state and effect; the effect "" stands for the whole state."""
    times: dict[tuple[str, str], float] = {}
    for state in job.states:
        for part in (state, *parts(job, state)):
            key = (state.name, "" if part.kind is Kind.STATE else part.name)
            times[key] = times.get(key, 0.0) + part.secs
    return times
