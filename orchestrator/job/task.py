"""One job in this process: waits for a slot, performs its steps, and ends it.

Every event is in the journal before the next effect begins. An infrastructure fault is an event
too, never an exception. A task raises only a cancellation, after the job was cancelled, and the
errors of a journal that cannot be written.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack

import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.secrets import SecretMissing
from orchestrator.errors import cause_of, unforeseen
from orchestrator.incus.errors import IncusError, MemberOffline
from orchestrator.job.attempts import Attempts
from orchestrator.job.context import Context
from orchestrator.job.end import JobEnd
from orchestrator.job.outside import Outside
from orchestrator.job.preparation import Preparation
from orchestrator.job.queue import Queue
from orchestrator.job.record import Record
from orchestrator.job.steps import Steps
from orchestrator.job.taking import Taking
from orchestrator.journal import JournalError, Lease, NotTheWriter
from states import events as ev
from states.ending import Intent
from states.errors import PikaciError
from states.job import Job
from states.lifecycle import State

MAX_RETRY_DELAY_SECS = 30.0
# A job that makes its host crash must not do so on all of them. An attempt without its command does
# no harm.
MAX_LOSSES = 3
MAX_LOST_ATTEMPTS = 20
# For the delete on a host that may be away, before the next attempt may begin on another one.
LET_GO_SECS = 30.0
# Who starts many jobs lets other tasks run after each batch of this many.
STARTED_AT_ONCE = 20

_MAY_RETRY = (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED, State.INSTANCE_READY)


class JobTask:
    """Drives a submitted job to its end, from any state.

    The job holds a slot of `queue` until it has ended; the cleanup of its guest needs none.
    `leases` are those that a dead process left open for it. An `adopted` job whose command cannot
    start, because this process lacks a secret, is left to a process that has it. `settled` is set
    when the verdict is in the journal, or this process will not write it. `HostUnknown` if the
    settings do not have the job's host, another `UsageError` if they are wrong.
    """

    def __init__(
        self,
        context: Context,
        job: Job,
        queue: Queue,
        *,
        leases: Sequence[Lease] = (),
        adopted: bool = False,
    ) -> None:
        self.settled = trio.Event()
        self.is_preparing = False  # it waits for jobs that it needs, or for its output
        self.intent = IntentSwitch(context.intent)
        self._record = Record(context.journal, job)
        self._queue = queue
        self._adopted = adopted
        self._slot: AbstractAsyncContextManager[str] | None = None
        outside = Outside(context, self._record)
        self._attempts = Attempts(context, self._record, self.intent, leases, outside)
        self._preparation = Preparation(context, self._record)
        self._steps = Steps(
            context,
            self._record,
            self._attempts,
            outside,
            lambda: self._preparation.inputs,
            adopted=adopted,
        )
        self._context = context
        self._taking: Taking | None = None
        self._choose()
        self._end = JobEnd(
            context,
            self._record,
            self._attempts,
            self.intent,
            self.settled,
            lambda: not (queue.held or queue.queued),
        )
        self._scope = trio.CancelScope()
        self._fail_fast = context.fail_fast

    def _choose(self) -> None:
        """Look for the host, if the job has a choice now."""
        if self.job.hosts:
            self._taking = Taking(self._context, self._record, lambda: self._preparation.inputs)
        else:
            self._context.at(self.job.host)

    @property
    def job(self) -> Job:
        """The job as the journal has it."""
        return self._record.job

    def enqueue(self) -> None:
        """Queue the job before `run`, which must follow. Slots are granted in order of the calls.

        Without this call, `run` queues the job; but tasks started together run in any order. A job
        that must be prepared is queued after that.
        """
        if self._must_prepare:
            return
        self._enqueue()

    @property
    def _must_prepare(self) -> bool:
        return self.job.state is State.SUBMITTED and self._preparation.is_needed

    def _enqueue(self) -> None:
        since = trio.current_time()
        self._slot = self._queue.slot(
            self.job,
            waited=lambda after: self._record.waited(ev.WaitFor.PLACE, since, after=after),
            hosts=None if self._taking is None else self._taking.hosts,
        )

    def cancel(self, reason: str, *, now: bool = False) -> None:
        """Cancel the job; `now` skips the grace period. Calling it twice is harmless."""
        if not self._scope.cancel_called:
            self._end.reason = reason
        self.intent.rise(Intent.CANCEL_NOW if now else Intent.CANCEL)
        self._scope.cancel()

    def _stop(self, because: str, reason: str) -> None:
        """Cancel the job, as another one of its run did not pass."""
        if not self._scope.cancel_called and not self.job.ended:
            self._end.because = because
            self.cancel(reason)

    async def run(self) -> None:
        """Run until the job has ended and its leases, as far as possible, are released."""
        try:
            with ExitStack() as held:
                if self.job.fail_fast:
                    held.enter_context(self._fail_fast.member(self.job, self._stop))
                await self._live_and_end()
        except (NotTheWriter, SecretMissing):
            pass  # another process has the job, or will have it, and does the cleanup
        finally:
            self.settled.set()

    async def _live_and_end(self) -> None:
        ours = True
        # Not `except Cancelled`: a nursery raises a group of them.
        try:
            with self._scope:
                async with AsyncExitStack() as held:
                    if self.job.fail_fast:
                        await self._fail_fast.look_back(self.job, self._stop)
                    if self._must_prepare:
                        await self._prepare(held)
                    while not self.job.ended:
                        if self._slot is None:
                            self._enqueue()
                        assert self._slot is not None
                        async with self._slot as host:
                            if await self._is_taken(host, held):
                                await self._live()
                                if not self.job.hosts:
                                    break
                                self._choose()
                        self._slot = None
        except Exception as error:
            cause = cause_of(error)
            if isinstance(cause, JournalError | SecretMissing):
                ours = False
                raise cause from error
            await self._fail(unforeseen(cause))
        finally:
            if ours:
                with trio.CancelScope(shield=True):
                    await self._end.perform()
            self._attempts.leave()

    async def _is_taken(self, host: str, held: AsyncExitStack) -> bool:
        """Whether the host takes the job; if the job ends meanwhile, that too."""
        if self._taking is None:
            return True
        try:
            if not await self._taking.take(host):
                return False
            if self._preparation.looks_for_output:
                # An earlier attempt on another host may have made another output.
                await held.aclose()
                await self._preparation.find_output(held)
        except JournalError:
            raise
        except PikaciError as fault:
            await self._fail(fault)
        return True

    async def _prepare(self, held: AsyncExitStack) -> None:
        self.is_preparing = True
        try:
            await self._preparation.perform(held)
        except JournalError:
            raise
        except PikaciError as fault:
            await self._fail(fault)
        finally:
            self.is_preparing = False

    async def _live(self) -> None:
        """Perform the job's steps until it has ended, or has a choice of hosts again."""
        while not (self.job.ended or self.job.state is State.CANCELLING or self.job.hosts):
            try:
                await self._steps.next()
            except JournalError:
                raise
            except PikaciError as fault:
                if self._adopted and isinstance(fault, SecretMissing):
                    raise
                if not await self._lose(fault) and not await self._retry(fault):
                    await self._fail(fault)

    @property
    def _within_secs(self) -> float:
        # With a choice, another host may do the work at once; what is left is deleted later.
        return LET_GO_SECS if self.job.choice else math.inf

    async def _lose(self, fault: PikaciError) -> bool:
        """Start another attempt, on another member, if the cluster has lost the attempt's."""
        why = await self._attempts.why_lost(fault)
        if not why or self.job.losses >= MAX_LOSSES or self.job.attempt >= MAX_LOST_ATTEMPTS:
            return False
        member = self._attempts.member
        failure = self._record.failure(
            PikaciError(why, details=fault.brief, resolution=MemberOffline.hint)
        )
        await self._attempts.let_go(within_secs=self._within_secs)
        await self._record.emit(ev.Lost(**self._record.next(), failure=failure, member=member))
        return True

    async def _retry(self, fault: PikaciError) -> bool:
        """Start another attempt, if the fault and the spec's `retries` allow it."""
        assert self.job.spec is not None
        retryable = isinstance(fault, IncusError) and fault.retryable
        if (
            not retryable
            or self.job.state not in _MAY_RETRY
            or self.job.retries >= self.job.spec.retries
        ):
            return False
        delay = min(2.0 ** (self.job.retries + 1), MAX_RETRY_DELAY_SECS) * random.uniform(0.5, 1.5)
        failure = self._record.failure(fault)
        await self._attempts.let_go(within_secs=self._within_secs)
        await self._record.emit(
            ev.Retried(**self._record.next(), failure=failure, delay_secs=round(delay, 3))
        )
        await trio.sleep(delay)
        return True

    async def _fail(self, fault: PikaciError) -> None:
        attempt = self._attempts.begun
        for warning in attempt.evidence.warnings if attempt else ():
            self._record.warn(warning)
        failure = self._record.failure(fault)
        await self._record.emit(ev.Failed(**self._record.next(), failure=failure))
