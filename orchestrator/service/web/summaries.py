"""Summaries of jobs, cached: a board shows the same jobs over and over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.orchestrator import Orchestrator
from orchestrator.report import JobDocument, job_document
from orchestrator.terminal import first_line
from orchestrator.words import DAMAGED, STATES, verdict_or_state
from states import events as ev
from states.lifecycle import TERMINAL, State
from states.outcome import Verdict

MAX_KNOWN = 20_000
MAX_MESSAGE = 300


@dataclass(frozen=True)
class Summary:
    """A job on the board. `mark` names its shape and colour, `word` is the text.

    `because` is the job that did not pass, if this one was skipped or cancelled for that.

    `begin` is when it got its slot, None before; `message` says on one line why it did not pass.
    """

    id: str
    run: str
    name: str
    state: State
    verdict: Verdict | None
    mark: str
    word: str
    submitted: datetime
    begin: datetime | None
    end: datetime | None
    message: str
    workspace: str
    commit: str
    dirty: bool
    because: str = ""

    @property
    def ran(self) -> bool:
        """Whether it has begun, or may yet."""
        return self.state not in (State.REUSED, State.SKIPPED)

    @property
    def secs(self) -> float | None:
        """Seconds that it took, without its time in the queue; None until it has ended."""
        if self.end is None:
            return None
        return (self.end - (self.begin or self.submitted)).total_seconds()


def summary(job: JobDocument) -> Summary:
    """The summary of a job; if it cannot be read, of what is known without its events."""
    first, last = job.phases[0], job.phases[-1]
    turn = next((phase for phase in job.phases if phase.state is State.ARTIFACTS_RESET), None)
    message = job.damaged or (job.failure.message if job.failure else "")
    return Summary(
        id=job.id,
        run=job.run,
        name=job.name,
        state=job.state,
        verdict=job.verdict,
        mark=mark(job),
        word=DAMAGED if job.damaged else verdict_or_state(job.verdict, job.state),
        submitted=first.entered_at,
        begin=turn.entered_at if turn else None,
        end=last.entered_at if job.state in TERMINAL else None,
        message=first_line(message)[:MAX_MESSAGE],
        workspace=job.workspace,
        commit=(job.snapshot.commit or "")[:12] if job.snapshot else "",
        dirty=bool(job.snapshot and job.snapshot.dirty),
        because=job.because or "",
    )


def mark(job: JobDocument) -> str:
    """The name of a job's shape and colour: from its verdict, or its state."""
    if job.damaged:
        return DAMAGED
    if job.state is State.REUSED:
        return STATES[job.state]
    if job.verdict is not None:
        return job.verdict.value
    if job.state in (State.SUBMITTED, State.CANCELLING):
        return STATES[job.state]
    return STATES[State.RUNNING]


class Summaries:
    """A cache of summaries of one orchestrator's jobs; an event of a job drops its summary."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._known: OrderedDict[str, Summary] = OrderedDict()
        self._asked: list[set[str]] = []  # jobs being read, without those that changed meanwhile
        orchestrator.journal.observe(self._on_entry)

    async def __call__(self, jobs: Sequence[str]) -> list[Summary]:
        """The summaries of jobs, by id. Jobs that `pikaci gc` has deleted are left out."""
        found = {job: self._known[job] for job in jobs if job in self._known}
        for job in found:
            self._known.move_to_end(job)
        if asked := {job for job in jobs if job not in found}:
            self._asked.append(asked)
            try:
                read = await self._orchestrator.fetch_jobs(list(asked))
            finally:
                self._asked.remove(asked)
            for one in read:
                found[one.id] = summary(job_document(one))
                if one.id in asked:
                    self._known[one.id] = found[one.id]
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return [found[job] for job in jobs if job in found]

    def _on_entry(self, entry: ev.Entry) -> None:
        if isinstance(entry, ev.Event):
            self._known.pop(entry.job, None)
            for asked in self._asked:
                asked.discard(entry.job)
