"""How far a run is: its jobs by how they ended, as a bar and in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.words import DAMAGED, STATES, VERDICTS
from states.lifecycle import State
from states.outcome import Verdict

# Width of a bar, in SVG units; a part of it is never narrower than `_NARROWEST`.
WIDTH = 1000
_NARROWEST = 8
_RUNNING = STATES[State.RUNNING]
_CANCELLING = STATES[State.CANCELLING]
_QUEUED = STATES[State.SUBMITTED]
_REUSED = STATES[State.REUSED]
# What needs attention comes first.
URGENCY = (
    DAMAGED,
    Verdict.FAILED.value,
    Verdict.TIMED_OUT.value,
    Verdict.INFRASTRUCTURE.value,
    Verdict.REJECTED.value,
    Verdict.CANCELLED.value,
    _CANCELLING,
    _RUNNING,
    Verdict.SKIPPED.value,
    _QUEUED,
    _REUSED,
    Verdict.PASSED.value,
)
BAD = URGENCY[:6]
TO_GO = (_CANCELLING, _RUNNING, _QUEUED)


@dataclass(frozen=True)
class Part:
    """A part of the bar: `x` and `width` in SVG units."""

    mark: str
    x: float
    width: float


@dataclass(frozen=True)
class Progress:
    """The bar, what fails first; and the same in words: `146 passed, 4 failed, 150 to go`."""

    parts: tuple[Part, ...]
    words: str


def urgency(mark: str) -> int:
    """The smaller, the more urgent is a job with this mark."""
    return URGENCY.index(mark) if mark in URGENCY else 0


def progress(marks: Mapping[str, int]) -> Progress:
    """The progress of a run from the number of its jobs with each mark."""
    shown = [mark for mark in URGENCY if marks.get(mark)]
    return Progress(parts=tuple(_parts(shown, marks)), words=_words(shown, marks))


def _parts(shown: Sequence[str], marks: Mapping[str, int]) -> list[Part]:
    total = sum(marks.values())
    room = WIDTH - _NARROWEST * len(shown)
    found, x = [], 0.0
    for mark in sorted(shown, key=_place):
        width = _NARROWEST + room * marks[mark] / total
        found.append(Part(mark, round(x, 2), round(width, 2)))
        x += width
    return found


def _place(mark: str) -> int:
    """What failed is at the left, what passed beside it, and what is to go at the right."""
    kinds = (
        BAD,
        (Verdict.PASSED.value, _REUSED),
        (_RUNNING, _CANCELLING),
        (Verdict.SKIPPED.value,),
    )
    return next((place for place, kind in enumerate(kinds) if mark in kind), len(kinds))


def _words(shown: Sequence[str], marks: Mapping[str, int]) -> str:
    good = [mark for mark in (Verdict.PASSED.value, _REUSED) if mark in shown]
    rest = [mark for mark in shown if mark not in good and mark not in TO_GO]
    said = [f"{marks[mark]} {VERDICTS.get(mark, mark)}" for mark in [*good, *rest]]
    to_go = sum(marks.get(mark, 0) for mark in TO_GO)
    return ", ".join([*said, *([f"{to_go} to go"] if to_go else [])])
