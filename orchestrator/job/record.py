"""Records one job while it runs: its events, its notes, its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from orchestrator.egress.frames import Hello
from orchestrator.egress.ledger import Entry
from orchestrator.incus import LOCAL, Call
from orchestrator.journal import Journal
from orchestrator.journal.stamp import boot_id, now
from states import events as ev
from states.errors import PikaciError
from states.job import Job, step
from states.outcome import Failure, FailureKind
from states.testcases import Case

MAX_NOTED_WORD = 1000
# Shorter waits are not worth a note.
MIN_WAIT_SECS = 0.01


class NoLongerAccepted(PikaciError):
    """Another version of pikaci accepted the job; this one refuses its spec."""


class Record:
    """The job as the journal has it. All entries of a running job are written through this."""

    def __init__(self, journal: Journal, job: Job) -> None:
        self.job = job
        self._journal = journal

    async def emit(self, *entries: ev.Entry, cases: Sequence[Case] = ()) -> None:
        """Make the entries and the test cases durable, then apply the events to the job."""
        job = self.job
        for entry in entries:
            if isinstance(entry, ev.Event):
                job = step(job, entry)
        await self._journal.append(*entries, cases=cases)
        self.job = job

    def decide(self, host: str) -> None:
        """A job that had a choice runs on this host; the journal has it with the next attempt."""
        there = "" if host == LOCAL else host
        self.job = msgspec.structs.replace(self.job, host=there, hosts=())

    def next(self) -> dict[str, Any]:
        """The common fields of the job's next event."""
        times = now()
        if self.job.boot != boot_id():
            times["boot"] = boot_id()
        return {"job": self.job.id, "seq": self.job.seq + 1, **times}

    def note(self) -> dict[str, Any]:
        """The common fields of a note."""
        return {"job": self.job.id, **now()}

    def failure(self, fault: PikaciError) -> Failure:
        """A fault as a failure in the job's current state."""
        message = "\n".join(part for part in (fault.brief, fault.details) if part)
        return Failure(
            kind=FailureKind.CONFIG
            if isinstance(fault, NoLongerAccepted)
            else FailureKind.INFRASTRUCTURE,
            phase=self.job.state,
            message=message,
            resolution=fault.resolution,
        )

    def called(self, call: Call) -> None:
        """Note an incus command, for the trace."""
        self._journal.note(call_note(self.job.id, call))

    def waited(self, what: ev.WaitFor, since: float, *, after: str = "") -> None:
        """Note what the job has waited for until now; `since` is a time of trio's clock."""
        secs = trio.current_time() - since
        if secs >= MIN_WAIT_SECS:
            self._journal.note(
                ev.Waited(**self.note(), what=what, duration_ms=round(secs * 1000, 3), after=after)
            )

    def output_missing(self, key: str, reason: str) -> None:
        """Note that the job runs because no output with this key can be reused."""
        self._journal.note(ev.OutputMissing(**self.note(), key=key, reason=reason))

    def connected(self, entry: Entry) -> None:
        """Note a connection to the outside, or a number of them."""
        self._journal.note(
            ev.Connected(
                **self.note(),
                host=entry.host,
                port=entry.port,
                address=entry.address,
                proxy=entry.proxy,
                refused=entry.refused,
                reason=entry.reason,
                sent_bytes=entry.sent_bytes,
                received_bytes=entry.received_bytes,
                duration_ms=round(entry.secs * 1000, 3),
                count=entry.count,
            )
        )

    def gap(self, hello: Hello | None) -> None:
        """Note a time without a way out; `hello` is the guest's word on it, None if it has none."""
        if hello is None:
            gap = ev.EgressGap(**self.note(), duration_ms=0, cut=0, late=0, known=False)
        else:
            gap = ev.EgressGap(
                **self.note(), duration_ms=hello.gap_ms, cut=hello.cut, late=hello.late
            )
        self._journal.note(gap)

    def warn(self, message: str) -> None:
        """Note something that people should know, but that is not a failure."""
        self._journal.note(ev.Warned(**self.note(), message=message))


def call_note(job: str, call: Call) -> ev.Called:
    """An incus command that has ended, as a note of a job's trace."""
    return ev.Called(
        v=2,
        job=job,
        **now(),
        effect=call.effect,
        argv=tuple(_clipped(word) for word in call.argv),
        duration_ms=round(call.duration_secs * 1000, 3),
        exit_code=call.exit_code,
        error=call.error,
    )


def _clipped(word: str) -> str:
    # The spec has the whole command; a trace need not repeat it for every call.
    return word if len(word) <= MAX_NOTED_WORD else word[:MAX_NOTED_WORD] + "..."
