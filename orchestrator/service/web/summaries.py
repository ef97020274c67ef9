"""Summaries of jobs, cached: a board shows the same jobs over and over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from orchestrator.journal import JobRow, Journal
from orchestrator.journal.rows import LONG_AGO
from orchestrator.orchestrator import Orchestrator
from orchestrator.terminal import first_line
from orchestrator.words import DAMAGED, STATES, verdict_or_state
from states import events as ev
from states.lifecycle import State
from states.outcome import Verdict

MAX_KNOWN = 20_000
MAX_MESSAGE = 300
# Other readers of the journal get their turn after so many jobs.
READ_AT_ONCE = 500


@dataclass(frozen=True)
class Summary:
    """A job on the board. `mark` names its shape and colour, `word` is the text.

    `number` is that of its run. `because` is the job that did not pass, if this one was skipped or
    cancelled for that. `identity` is the same for jobs that ran with the same inputs. `host` is the
    name of its host, "" for the local one.

    `begin` is when it got its slot, None before; `message` says on one line why it did not pass.
    """

    id: str
    run: str
    number: int
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
    subject: str = ""
    branch: str = ""
    because: str = ""
    identity: str | None = None
    host: str = ""

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


def summary(row: JobRow, damage: str = "") -> Summary:
    """The summary of a job; `damage` says why it cannot be read."""
    return Summary(
        id=row.id,
        run=row.run,
        number=row.number,
        name=row.name,
        state=row.state,
        verdict=row.verdict,
        mark=DAMAGED if damage else mark(row),
        word=DAMAGED if damage else verdict_or_state(row.verdict, row.state),
        submitted=row.submitted or LONG_AGO,
        begin=row.begun,
        end=row.moved or LONG_AGO if row.ended else None,
        message=first_line(damage or row.message)[:MAX_MESSAGE],
        workspace=row.workspace,
        commit=(row.commit or "")[:12],
        dirty=row.dirty,
        subject=row.subject,
        branch=row.branch,
        because=row.because,
        identity=row.identity,
        host=row.host,
    )


def mark(row: JobRow) -> str:
    """The name of a job's shape and colour: from its verdict, or its state."""
    if row.state is State.REUSED:
        return STATES[row.state]
    if row.verdict is not None:
        return row.verdict.value
    if row.state in (State.SUBMITTED, State.CANCELLING):
        return STATES[row.state]
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
        unknown = [job for job in dict.fromkeys(jobs) if job not in found]
        for start in range(0, len(unknown), READ_AT_ONCE):
            asked = set(unknown[start : start + READ_AT_ONCE])
            self._asked.append(asked)
            try:
                journal = self._orchestrator.journal
                read = await self._orchestrator.reading.journal(
                    partial(_read, journal, list(asked))
                )
            finally:
                self._asked.remove(asked)
            for one in read:
                found[one.id] = one
                if one.id in asked:
                    self._known[one.id] = one
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return [found[job] for job in jobs if job in found]

    def _on_entry(self, entry: ev.Entry) -> None:
        if isinstance(entry, ev.Event):
            self._known.pop(entry.job, None)
            for asked in self._asked:
                asked.discard(entry.job)


def _read(journal: Journal, jobs: Sequence[str]) -> list[Summary]:
    rows = journal.rows(jobs)
    damaged = journal.unreadable(jobs) | journal.damaged.intersection(jobs)
    return [summary(row, journal.look(row).damage if row.id in damaged else "") for row in rows]
