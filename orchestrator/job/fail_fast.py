"""Stops a run at the first of its jobs that does not pass, if its request asked for that.

Running jobs of the run are cancelled, and queued ones skipped. Each records which job was the
first, so that the run's verdict is that job's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from orchestrator.journal import Journal
from orchestrator.words import verdict_or_state, which_ended
from states import events as ev
from states.job import Job, verdict_of
from states.lifecycle import State
from states.outcome import Verdict

# Called with the id of the job that did not pass, and the reason to stop, in words.
Stop = Callable[[str, str], None]


class FailFast:
    """The jobs of this process that stop with their run."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._members: dict[str, dict[str, tuple[str, Stop]]] = {}  # name and stop, by run and job
        journal.observe(self._on_entry)

    @contextmanager
    def member(self, job: Job, stop: Stop) -> Iterator[None]:
        """Call `stop` if another job of the run does not pass during the block."""
        members = self._members.setdefault(job.run, {})
        members[job.id] = job.name, stop
        try:
            yield
        finally:
            del members[job.id]
            if not members and self._members.get(job.run) is members:
                del self._members[job.run]

    async def look_back(self, job: Job, stop: Stop) -> None:
        """Call `stop` if another job of the run has ended already, and did not pass."""
        first = await trio.to_thread.run_sync(self._journal.first_failed, job.run)
        if first is not None and first.id != job.id:
            stop(first.id, _reason(first.name, verdict_or_state(first.verdict, first.state)))

    def _on_entry(self, entry: ev.Entry) -> None:
        verdict = verdict_of(entry) if isinstance(entry, ev.Event) else None
        if verdict in (None, Verdict.PASSED, Verdict.SKIPPED):
            return
        members = self._members.get(entry.job.rpartition(".")[0], {})
        name, _ = members.get(entry.job, (entry.job, None))
        for id, (_, stop) in list(members.items()):
            if id != entry.job:
                stop(entry.job, _reason(name, verdict_or_state(verdict, State.FAILED)))


def _reason(name: str, word: str) -> str:
    return f"the run stopped at {name}, {which_ended(word)}"
