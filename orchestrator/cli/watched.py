"""The jobs of a run, as their entries tell of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from orchestrator.terminal import plain
from orchestrator.words import job_word
from states import events as ev
from states.job import Job, step
from states.lifecycle import State
from states.outcome import Verdict

# The calls that end when the job's command does; `attempt/effects.py` has them.
COMMAND_EFFECTS = frozenset({"run", "follow"})
COLLECTING = "collecting"
_NO_SLOT = (State.SUBMITTED, State.REJECTED, State.REUSED, State.SKIPPED)


class WatchedRun:
    """What a watch knows of its run. Names are harmless on a terminal."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.names: list[str] = []  # of all jobs, also of those that no entry told of yet
        self.began = time.monotonic()
        self._collecting: set[str] = set()  # jobs whose command has ended
        self._slots: dict[str, float] = {}  # when jobs got their slots, by the monotonic clock
        self._missing: dict[str, str] = {}  # why jobs make their outputs

    def begin(self, names: Sequence[str]) -> None:
        """These are the jobs of the run."""
        self.names = [plain(name) for name in names]

    def entry(self, entry: ev.Entry) -> None:
        """Learn what happened."""
        if isinstance(entry, ev.Event):
            job = self.jobs[entry.job] = step(self.jobs.get(entry.job, Job()), entry)
            if job.state not in _NO_SLOT:
                self._slots.setdefault(job.id, entry.monotonic)
            self._collecting.discard(entry.job)
        elif isinstance(entry, ev.Called) and entry.effect in COMMAND_EFFECTS:
            self._collecting.add(entry.job)
        elif isinstance(entry, ev.OutputMissing):
            self._missing[entry.job] = entry.reason

    def word(self, job: str) -> str:
        """What is being done for a job, or its verdict."""
        known = self.jobs[job]
        if known.state is State.RUNNING and job in self._collecting:
            return COLLECTING
        if needed := self._needed(known):
            return f"waiting for {needed}"
        return job_word(known)

    def name(self, job: str) -> str:
        """The name of a job."""
        return plain(self.jobs[job].name)

    def built(self, job: str) -> str | None:
        """Why a job made its output, "" if that is the first one; None if it made none."""
        known = self.jobs[job]
        made = known.output is not None and known.state is State.RESULT_COLLECTED
        return self._missing.get(job, "") if made else None

    def spent(self, job: str) -> float | None:
        """`secs` of a job that has ended; None if it did not run."""
        return None if self.jobs[job].state in _NO_SLOT else self.secs(job)

    def secs(self, job: str) -> float:
        """Seconds since a job got its slot, until its end if it has ended; 0 in the queue."""
        known = self.jobs[job]
        began = self._slots.get(job)
        if began is None:
            return 0.0
        return max(0.0, (known.monotonic if known.ended else time.monotonic()) - began)

    @property
    def run_secs(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    @property
    def running(self) -> list[Job]:
        """The jobs that have a slot, in the order in which they got it."""
        return [self.jobs[job] for job in self._slots if not self.jobs[job].ended]

    @property
    def ended(self) -> Counter[Verdict]:
        """How many jobs ended how."""
        return Counter(job.verdict for job in self.jobs.values() if job.verdict is not None)

    @property
    def reused(self) -> int:
        """How many jobs have an output that was there already."""
        return sum(job.state is State.REUSED for job in self.jobs.values())

    @property
    def waiting(self) -> list[str]:
        """For each job that waits for others, the name of the first of them."""
        return [name for job in self.jobs.values() if (name := self._needed(job))]

    def _needed(self, job: Job) -> str:
        """The name of the first job that this one waits for; "" if there is none."""
        if job.state is not State.SUBMITTED:
            return ""
        rest = (name for name, id in job.needs.items() if not self._has_ended(id))
        return plain(next(rest, ""))

    def _has_ended(self, job: str) -> bool:
        return job in self.jobs and self.jobs[job].ended

    @property
    def unfinished(self) -> int:
        """How many jobs have not ended."""
        return max(len(self.names), len(self.jobs)) - sum(job.ended for job in self.jobs.values())
