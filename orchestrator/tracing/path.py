"""The critical path: what had to end before the job or the run could end."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.tracing.parts import Share, joined, parts, summed
from orchestrator.tracing.timeline import Kind, Span, Timeline


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A job's part of a run's critical path: `secs` from when it got its slot to its verdict.

    `waited` is how long it waited for the slot before that, in seconds, if no job of this run freed
    it; `foreign` is the job of another run that did, if known.
    """

    id: str
    name: str
    secs: float
    waited: float = 0.0
    foreign: str = ""


def path_of_job(job: Timeline) -> list[Share]:
    """The steps from submission to verdict, in order; a failed attempt is one step.

    Pikaci's own work in between is added up in the last step.
    """
    last = max(span.attempt for span in job.states)
    steps: list[Share] = []
    own: list[Span] = []
    for state in job.states:
        spans: list[Span] = []
        for part in parts(job, state):
            if part.attempt < last and part.kind is not Kind.WAIT:
                part = msgspec.structs.replace(
                    part, name=f"attempt {part.attempt}", kind=Kind.CALL, command=""
                )
            (own if part.kind is Kind.HOST else spans).append(part)
        for share in summed(spans):
            if steps and steps[-1].name == share.name:
                steps[-1] = joined(steps[-1], share)
            else:
                steps.append(share)
    return [*steps, *summed(own)]


def path_of_run(jobs: Sequence[Timeline]) -> list[Link]:
    """The links from the first submission to the run's end: each job held up the next.

    It had the slot, or it was needed.
    """
    by_id = {job.id: job for job in jobs}
    job: Timeline | None = max(jobs, key=lambda job: job.settled)
    links: list[Link] = []
    while job is not None and all(link.id != job.id for link in links):
        place = job.held_up
        before = by_id.get(place.after) if place is not None else None
        alone = place is not None and before is None
        links.append(
            Link(
                id=job.id,
                name=job.name,
                secs=(job.settled - (place.end if place else job.begin)).total_seconds(),
                waited=place.secs if place and alone else 0.0,
                foreign=place.after if place and alone else "",
            )
        )
        job = before
    return links[::-1]
