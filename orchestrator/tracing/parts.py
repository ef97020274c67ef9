"""The parts of a state's time: incus calls, waits, and pikaci's own work in between."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from orchestrator.tracing.effects import OF_STATE, QUERY, SHELL
from orchestrator.tracing.timeline import HOST, Kind, Span, Timeline
from states.events import WaitFor
from states.lifecycle import State

STILL = "still"
# One call leads through these states; the journal has it when it has ended.
_ONE_CALL = {State.DEVICES_CONFIGURED, State.INSTANCE_READY, State.RUNNING}


def parts(job: Timeline, state: Span) -> list[Span]:
    """Cut the state's time into consecutive spans, without gaps.

    While several calls run at once, the time counts for the one that began last. Some run beside,
    and none counts for them: a person's shell, and the look for guests with the same ids.
    """
    beside = {SHELL, QUERY} if state.name == State.DEVICES_CONFIGURED else {SHELL}
    inside = [
        _of(state, span)
        for span in (*job.waits, *job.calls)
        if span.begin < state.end and span.end > state.begin and span.name not in beside
    ]
    cut = _cut(state, inside)
    if not job.job.ended and _lasts(job, state) and cut and cut[-1].kind is Kind.HOST:
        cut[-1] = msgspec.structs.replace(cut[-1], **_going_on(job, state))
    return cut


def _of(state: Span, span: Span) -> Span:
    """The call, as a part of the state: the one that runs the command waits for the guest first."""
    if (state.name, span.name) == (State.DEVICES_CONFIGURED, OF_STATE[State.RUNNING]):
        return msgspec.structs.replace(span, name=OF_STATE[State.DEVICES_CONFIGURED])
    return span


def afterwards(job: Timeline) -> list[Span]:
    """The calls that ended after the verdict: the guest's release."""
    return [call for call in job.calls if job.job.ended and call.end > job.settled]


def _lasts(job: Timeline, state: Span) -> bool:
    """Whether the state's effect is still running, so that the journal does not have it yet."""
    last = job.states[-1]
    together = {state.name, last.name} <= _ONE_CALL and state.attempt == last.attempt
    return state is last or together


def _going_on(job: Timeline, state: Span) -> dict[str, object]:
    if state.name == State.SUBMITTED:
        done = {wait.name for wait in job.waits}
        inputs = bool(job.job.needs) and WaitFor.INPUT not in done
        what = WaitFor.INPUT if inputs else WaitFor.PLACE
        return {"name": what.value, "kind": Kind.WAIT, "detail": STILL}
    over = state.name == State.DEVICES_CONFIGURED and state is not job.states[-1]
    effect = OF_STATE[State(state.name)]
    return {"name": effect, "kind": Kind.CALL, "detail": "" if over else STILL}


def _cut(state: Span, inside: Sequence[Span]) -> list[Span]:
    """Sweep over all times at which a span begins or ends."""
    waiting = sorted(inside, key=lambda span: span.begin, reverse=True)
    moments = sorted(
        {state.begin, state.end}
        | {
            moment
            for span in inside
            for moment in (span.begin, span.end)
            if state.begin < moment < state.end
        }
    )
    active: list[tuple[float, int, Span]] = []
    pieces: list[Span] = []
    begun: set[int] = set()
    for begin, end in pairwise(moments):
        while waiting and waiting[-1].begin <= begin:
            span = waiting.pop()
            heapq.heappush(active, (-span.begin.timestamp(), len(waiting), span))
        while active and active[0][2].end <= begin:
            heapq.heappop(active)
        if not active:
            _add(pieces, _host(state, begin, end), begin, end)
            continue
        span = active[0][2]
        # Another call began and ended meanwhile: the rest of this one is no second call.
        again = span.continued or id(span) in begun
        _add(pieces, msgspec.structs.replace(span, continued=again), begin, end)
        begun.add(id(span))
    return pieces


def _host(state: Span, begin: datetime, end: datetime) -> Span:
    return Span(name=HOST, kind=Kind.HOST, begin=begin, end=end, attempt=state.attempt)


def _add(pieces: list[Span], span: Span, begin: datetime, end: datetime) -> None:
    if pieces and pieces[-1].end == begin and _same(pieces[-1], span):
        pieces[-1] = msgspec.structs.replace(pieces[-1], end=end)
    else:
        pieces.append(msgspec.structs.replace(span, begin=begin, end=end))


def _same(one: Span, other: Span) -> bool:
    return (one.name, one.kind, one.detail) == (other.name, other.kind, other.detail)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """All spans with one name in a state or on a path; `failed` of the `count` were faults."""

    name: str
    kind: Kind
    secs: float
    command: str = ""
    count: int = 1
    failed: int = 0
    after: str = ""
    going_on: bool = False


def summed(spans: Iterable[Span]) -> list[Share]:
    """One share per name and command, in order of first appearance."""
    shares: dict[tuple[str, str], Share] = {}
    for span in spans:
        key = (span.name, span.command)
        share = Share(
            name=span.name,
            kind=span.kind,
            command=span.command,
            secs=span.secs,
            count=int(not span.continued),
            failed=int(not span.ok and not span.continued),
            after=span.after,
            going_on=span.detail == STILL,
        )
        shares[key] = joined(shares[key], share) if key in shares else share
    return list(shares.values())


def joined(one: Share, other: Share) -> Share:
    """Merge two shares with the same name."""
    return msgspec.structs.replace(
        one,
        secs=round(one.secs + other.secs, 6),
        count=one.count + other.count,
        failed=one.failed + other.failed,
        after=other.after or one.after,
        going_on=one.going_on or other.going_on,
    )
