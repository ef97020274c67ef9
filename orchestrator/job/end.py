"""The end of a job and of its instances, as `states.ending` decides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import trio

from orchestrator.attempt.end import end_in_guest
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.lease import HeldLease
from orchestrator.job.attempts import Attempts
from orchestrator.job.context import Context
from orchestrator.job.record import Record
from orchestrator.journal import KeptFull
from states import events as ev
from states.ending import Action, Intent, end_plan
from states.lifecycle import State
from states.outcome import Failure, FailureKind, Verdict
from states.spec import keep_secs
from states.usage import Usage

CANCELLED_RELEASE_SECS = 30.0
_NEVER_STARTED = (State.SUBMITTED, State.ARTIFACTS_RESET)


class JobEnd:
    """Ends a job in any state: cancels it unless it has ended, and releases its instances.

    `reason` is why it is cancelled; `because` is the job that did not pass, if the run stops at the
    first such job. `settled` is set when the verdict is in the journal. `is_last`
    says whether no other job of this process runs or is queued: only then is it worth two calls
    instead of one not to wait for the delete.
    """

    def __init__(
        self,
        context: Context,
        record: Record,
        attempts: Attempts,
        intent: IntentSwitch,
        settled: trio.Event,
        is_last: Callable[[], bool],
    ) -> None:
        self.reason = "interrupted"
        self.because = ""
        self._context = context
        self._may_keep = True
        self._record = record
        self._attempts = attempts
        self._intent = intent
        self._settled = settled
        self._is_last = is_last

    async def perform(self) -> None:
        """Do everything that is left to do, or as much as the intent and the daemon allow."""
        if not self._record.job.ended:
            self._intent.rise(Intent.CANCEL)
        lease = self._attempts.lease
        failed: set[Action] = set()
        while True:
            job = self._record.job
            if job.ended:
                self._settled.set()
            action = end_plan(
                job.state,
                self._state_before_cancel(),
                lease.state if lease else None,
                self._intent.value,
                keep=self._keep_secs() is not None,
                hand_over=lease is not None and bool(lease.hand_over) and self._is_last(),
                failed=failed | (lease.failed if lease else set()),
            )
            if action in (Action.DONE, Action.LEAVE):
                break
            await self._do(action, lease, failed)
        await self._attempts.let_earlier_go()

    async def _do(self, action: Action, lease: HeldLease | None, failed: set[Action]) -> None:
        record = self._record
        match action:
            case Action.REQUEST:
                await self._request()
            case Action.KILL:
                attempt = self._attempts.current()
                if not await end_in_guest(attempt, self._intent):
                    failed.add(action)
                    return
                await self._confirm(attempt.evidence.usage)
            case Action.CONFIRM:
                await self._confirm()
            case Action.KEEP:
                assert lease is not None
                await self._keep(lease)
            case _:
                assert lease is not None
                cancelled = record.job.state in (State.CANCELLING, State.CANCELLED)
                secs = CANCELLED_RELEASE_SECS if cancelled else float("inf")
                await lease.do(action, self._intent, secs=secs)

    async def _request(self) -> None:
        record, because = self._record, self.because
        if not because or record.job.state is not State.SUBMITTED:
            await record.emit(
                ev.CancelRequested(**record.next(), reason=self.reason, because=because)
            )
            return
        failure = Failure(kind=FailureKind.SKIPPED, phase=State.SUBMITTED, message=self.reason)
        await record.emit(ev.Skipped(**record.next(), failure=failure, because=because))

    async def _confirm(self, usage: Usage | None = None) -> None:
        failure = Failure(
            kind=FailureKind.CANCELLED,
            phase=self._state_before_cancel(),
            message=f"cancelled: {self.reason}",
        )
        await self._record.emit(ev.Cancelled(**self._record.next(), failure=failure, usage=usage))

    def _state_before_cancel(self) -> State:
        job = self._record.job
        return job.phases[-2].state if job.state is State.CANCELLING else job.state

    async def _keep(self, lease: HeldLease) -> None:
        secs = timedelta(seconds=self._keep_secs() or 0)
        try:
            await lease.keep(datetime.now(UTC) + secs)
        except KeptFull as full:
            self._may_keep = False
            self._record.warn(f"its guest is not kept: {full.brief}; {full.resolution}")

    def _keep_secs(self) -> float | None:
        """How long to keep the guest of this job, which has ended; None for not at all."""
        job = self._record.job
        if not self._may_keep or job.verdict in (None, Verdict.PASSED) or job.because:
            return None
        if job.phases[-2].state in _NEVER_STARTED:
            return None  # nobody could enter it
        if job.spec is None:
            return None
        secs = keep_secs(job.spec, self._context.keep_secs)
        if job.verdict is Verdict.CANCELLED and secs is not None:
            return self._context.keep_secs  # whoever asks for `keep` in a spec may be long gone
        return secs
