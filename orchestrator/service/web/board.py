"""The data of the board: running jobs, queued jobs, and the newest runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice

from orchestrator.orchestrator import Orchestrator
from orchestrator.service.web.summaries import Summaries, Summary
from orchestrator.words import DAMAGED, STATES, VERDICTS
from states.lifecycle import State
from states.outcome import Verdict, counted, overall

RUNS = 30
MAX_SHOWN = 60
MAX_WAITING = 10
MAX_MESSAGES = 3
# Shown first, if not all jobs of a run fit.
_URGENT = (
    "damaged",
    "failed",
    "timed_out",
    "infrastructure",
    "rejected",
    "cancelled",
    "running",
    "skipped",
)


@dataclass(frozen=True)
class Waiting:
    """A queued job, and what it waits for."""

    job: Summary
    waits_for: str


@dataclass(frozen=True)
class Now:
    """The current jobs. `waiting` ones wait for a slot, or for jobs that they need.

    `more` is how many do beyond those.
    """

    running: tuple[Summary, ...]
    waiting: tuple[Waiting, ...]
    more: int


@dataclass(frozen=True)
class Run:
    """A run with its jobs, or the most urgent of many. `counts` covers all of them.

    `told` are jobs whose messages are shown.
    """

    id: str
    mark: str
    word: str
    jobs: tuple[Summary, ...]
    total: int
    counts: tuple[tuple[str, int], ...]
    told: tuple[Summary, ...]
    submitted: datetime
    begin: datetime | None
    end: datetime | None
    workspace: str
    commit: str
    dirty: bool

    @property
    def secs(self) -> float | None:
        """Seconds since the first job got its slot, if all jobs have ended; else None."""
        if self.end is None:
            return None
        return (self.end - (self.begin or self.submitted)).total_seconds()


async def now(orchestrator: Orchestrator, summaries: Summaries) -> Now:
    """The current jobs of this service."""
    queue = orchestrator.queue
    held = [slot.job for slot in queue.held]
    preparing = orchestrator.preparing
    queued = (slot.job for slot in queue.waiting())
    waiting = list(islice(chain(queued, preparing), MAX_WAITING))
    more = queue.queued + len(preparing) - len(waiting)
    found = {job.id: job for job in await summaries([*held, *waiting])}
    running = [found[job] for job in held if job in found]
    return Now(
        # A job that has ended holds its slot until its guest is gone.
        running=tuple(sorted((job for job in running if job.end is None), key=_age)),
        waiting=tuple(
            Waiting(found[job], orchestrator.waits_for(job)) for job in waiting if job in found
        ),
        more=more,
    )


def _age(job: Summary) -> datetime:
    return job.begin or job.submitted


def run(jobs: Sequence[Summary], *, most: int = MAX_SHOWN) -> Run:
    """Make a run from its jobs, of which at most `most` are shown."""
    first = jobs[0]
    ended = [job.end for job in jobs if job.end is not None]
    begun = [job.begin for job in jobs if job.begin is not None]
    mark, word = _verdict(jobs)
    shown = jobs
    if len(jobs) > most:
        shown = sorted(jobs, key=lambda job: _URGENT.index(job.mark) if job.mark in _URGENT else 9)
    counts = Counter(job.mark for job in jobs)
    bad = sorted(
        (job for job in jobs if job.message), key=lambda job: job.verdict is Verdict.SKIPPED
    )
    return Run(
        id=first.run,
        mark=mark,
        word=word,
        jobs=tuple(shown[:most]),
        total=len(jobs),
        counts=tuple(sorted(counts.items())),
        told=tuple(bad[:MAX_MESSAGES]),
        submitted=first.submitted,
        begin=min(begun, default=None),
        end=max(ended) if len(ended) == len(jobs) else None,
        workspace=first.workspace,
        commit=first.commit,
        dirty=first.dirty,
    )


def _verdict(jobs: Sequence[Summary]) -> tuple[str, str]:
    if any(job.mark == DAMAGED for job in jobs):
        return DAMAGED, DAMAGED
    verdicts = [counted(job.verdict, job.because) for job in jobs if job.verdict is not None]
    if len(verdicts) == len(jobs):
        verdict = overall(verdicts)
        return verdict.value, VERDICTS[verdict]
    if all(job.state is State.SUBMITTED for job in jobs):
        return STATES[State.SUBMITTED], STATES[State.SUBMITTED]
    bad = sum(verdict is not Verdict.PASSED for verdict in verdicts)
    running = STATES[State.RUNNING]
    return running, f"{running}, {bad} did not pass" if bad else running
