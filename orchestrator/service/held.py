"""Runs that their submitters hold: cancelled when nobody has been connected for them for a while.

So a caller that dies leaves nothing running. That a run is held is in the journal: after a restart
of the service its submitter has the same time to come back.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from orchestrator.orchestrator import Orchestrator
from states import events as ev
from states.errors import PikaciError

# How long a run goes on without its submitter.
HELD_SECS = 30.0
LOOK_SECS = 1.0
_log = logging.getLogger(__name__)


class HeldRuns:
    """The held runs of a service. Nothing is cancelled unless `watch` runs."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._held: set[str] = set()
        self._holders: Counter[str] = Counter()
        self._alone_since: dict[str, float] = {}
        orchestrator.journal.observe(self._note)

    def _note(self, entry: ev.Entry) -> None:
        # Before its submitter can be told: it may be gone already.
        if isinstance(entry, ev.Submitted) and entry.held:
            self._held.add(entry.run)
            self._leave(entry.run)

    def _leave(self, run: str) -> None:
        if not self._holders[run]:
            del self._holders[run]
            if run in self._held:
                self._alone_since.setdefault(run, trio.current_time())

    @contextmanager
    def holding(self, run: str) -> Iterator[None]:
        """Hold the run during the block, which changes nothing for one that is not held."""
        self._holders[run] += 1
        self._alone_since.pop(run, None)
        try:
            yield
        finally:
            self._holders[run] -= 1
            self._leave(run)

    async def watch(self) -> None:
        """Cancel the runs that nobody has held for `HELD_SECS`; does not return."""
        for run in await trio.to_thread.run_sync(self._left):
            self._held.add(run)
            self._leave(run)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(LOOK_SECS)
                latest = trio.current_time() - HELD_SECS
                for run, since in list(self._alone_since.items()):
                    if since <= latest:
                        del self._alone_since[run]
                        self._held.discard(run)
                        nursery.start_soon(self._cancel, run)

    def _left(self) -> list[str]:
        """The held runs that an earlier process left unfinished."""
        journal = self._orchestrator.journal
        held: list[str] = []
        for run, job in {row.run: row.id for row in journal.unfinished()}.items():
            try:
                _, first = journal.entries(job, limit=1)[0]
            except PikaciError:  # it cannot be read: nobody can say
                continue
            if isinstance(first, ev.Submitted) and first.held:
                held.append(run)
        return held

    async def _cancel(self, run: str) -> None:
        try:
            jobs = [job.id for job in (await self._orchestrator.find_run(run)).jobs]
            found = await self._orchestrator.fetch_jobs(jobs)
            if unfinished := [job.id for job in found if not job.ended]:
                _log.info("cancelling a run: its submitter is gone", extra={"about": {"run": run}})
                await self._orchestrator.cancel(unfinished, reason="its submitter is gone")
        except PikaciError as error:
            _log.warning("the held run %s could not be cancelled: %s", run, error.headline)
