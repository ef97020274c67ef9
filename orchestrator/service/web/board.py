"""The data of the board: running jobs, queued jobs, and the newest runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice

from orchestrator.orchestrator import Orchestrator
from orchestrator.service.web.progress import BAD, Progress, progress, urgency
from orchestrator.service.web.summaries import Summaries, Summary
from orchestrator.words import DAMAGED, STATES, VERDICTS
from states.lifecycle import State
from states.outcome import Verdict, counted, overall

RUNS = 30
MAX_RUNNING = 8
MAX_WAITING = 10
# A run has one row of chips, and tells of the first failures.
MAX_CHIPS = 6
MAX_TOLD = 3
# Rows of one kind on a run's page; the list of jobs has the rest, in pages.
MAX_ROWS = 100
# The kinds of jobs on a run's page, in their order. The others are in short lists.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("did not pass", BAD),
    (STATES[State.RUNNING], (STATES[State.RUNNING], STATES[State.CANCELLING])),
    (VERDICTS[Verdict.SKIPPED], (Verdict.SKIPPED.value,)),
    (STATES[State.SUBMITTED], (STATES[State.SUBMITTED],)),
    (VERDICTS[Verdict.PASSED], (Verdict.PASSED.value, STATES[State.REUSED])),
)
# So many jobs are all shown; of more, those that passed or are queued are in one line at first.
FEW = 20


@dataclass(frozen=True)
class Waiting:
    """A queued job, and what it waits for."""

    job: Summary
    waits_for: str


@dataclass(frozen=True)
class Now:
    """The current jobs, at most `MAX_RUNNING` and `MAX_WAITING` of them, and how many there are.

    `waiting` ones wait for a slot, or for jobs that they need. `warm` guests are booted or booting.
    """

    running: tuple[Summary, ...]
    running_count: int
    waiting: tuple[Waiting, ...]
    queued: int
    used: int
    slots: int
    warm: int


@dataclass(frozen=True)
class Run:
    """A run: its counts cover all jobs, of which `jobs` are the most urgent that are not `told`.

    `told` are jobs whose messages are shown, of `bad` ones.
    """

    id: str
    number: int
    mark: str
    word: str
    jobs: tuple[Summary, ...]
    total: int
    progress: Progress
    told: tuple[Summary, ...]
    bad: int
    submitted: datetime
    begin: datetime | None
    end: datetime | None
    workspace: str
    commit: str
    dirty: bool
    subject: str
    branch: str

    @property
    def secs(self) -> float | None:
        """Seconds since the first job got its slot, if all jobs have ended; else None."""
        if self.end is None:
            return None
        return (self.end - (self.begin or self.submitted)).total_seconds()


@dataclass(frozen=True)
class Group:
    """Jobs of one kind on a run's page: the first `MAX_ROWS` of `total`."""

    name: str
    jobs: tuple[Summary, ...]
    total: int
    open: bool


async def now(orchestrator: Orchestrator, summaries: Summaries) -> Now:
    """The current jobs of this service."""
    queue = orchestrator.queue
    numbers = orchestrator.statistics()
    held = [slot.job for slot in queue.held]
    preparing = orchestrator.preparing
    queued = (slot.job for slot in queue.waiting())
    waiting = list(islice(chain(queued, preparing), MAX_WAITING))
    found = {job.id: job for job in await summaries([*held, *waiting])}
    # A job that has ended holds its slot until its guest is gone.
    running = [found[job] for job in held if job in found and found[job].end is None]
    return Now(
        running=tuple(sorted(running, key=_age)[:MAX_RUNNING]),
        running_count=len(running),
        waiting=tuple(
            Waiting(found[job], orchestrator.waits_for(job)) for job in waiting if job in found
        ),
        queued=queue.queued + len(preparing),
        used=len(held),
        slots=queue.slots(host.name for host in orchestrator.hosts),
        # The page is drawn when jobs change, and so mostly while the next guest boots.
        warm=numbers.warm + numbers.booting,
    )


def _age(job: Summary) -> datetime:
    return job.begin or job.submitted


def run(jobs: Sequence[Summary]) -> Run:
    """Make a run from its jobs."""
    first = jobs[0]
    ended = [job.end for job in jobs if job.end is not None]
    begun = [job.begin for job in jobs if job.begin is not None]
    mark, word = _verdict(jobs)
    bad = [job for job in jobs if kind_of(job) in BAD and job.message]
    told = tuple(sorted(bad, key=_urgency)[:MAX_TOLD])
    others = [job for job in jobs if job not in told]
    # A job that sees a part of the workspace knows of no commit.
    tree = next((job for job in jobs if job.commit), first)
    return Run(
        id=first.run,
        number=first.number,
        mark=mark,
        word=word,
        jobs=tuple(sorted(others, key=_urgency)[:MAX_CHIPS] if len(others) > MAX_CHIPS else others),
        total=len(jobs),
        progress=progress(Counter(kind_of(job) for job in jobs)),
        told=told,
        bad=len(bad),
        submitted=first.submitted,
        begin=min(begun, default=None),
        end=max(ended) if len(ended) == len(jobs) else None,
        workspace=first.workspace,
        commit=tree.commit,
        dirty=tree.dirty,
        subject=tree.subject,
        branch=tree.branch,
    )


def kind_of(job: Summary) -> str:
    """The mark of a job as it counts: one that was stopped for another counts as skipped."""
    if job.mark == Verdict.CANCELLED.value and job.because:
        return Verdict.SKIPPED.value
    return job.mark


def _urgency(job: Summary) -> int:
    return urgency(kind_of(job))


def groups(jobs: Sequence[Summary]) -> list[Group]:
    """The jobs of a run by kind, what needs attention first."""
    found = []
    for name, marks in _KINDS:
        some = sorted((job for job in jobs if kind_of(job) in marks), key=_urgency)
        if some:
            calm = name in (STATES[State.SUBMITTED], VERDICTS[Verdict.PASSED])
            is_open = not calm or len(jobs) <= FEW
            found.append(Group(name, tuple(some[:MAX_ROWS]), len(some), is_open))
    return found


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
