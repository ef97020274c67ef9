"""The life of one job: performs effects, and feeds the events that they make to `states`.

Every event is in the journal before the next effect begins. A fault of the infrastructure is
an event too, never an exception in whoever runs the task; what is raised is a cancellation,
which ends the job first, and a journal that cannot be written.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import trio

from orchestrator.attempt import Attempt, NoResult, reset_artifacts
from orchestrator.image.store import Images
from orchestrator.incus import Call
from orchestrator.incus_errors import IncusError
from orchestrator.journal import JournalError
from orchestrator.plan import PlanContext, lease_secs, make_plan
from orchestrator.result import GuestStatus
from orchestrator.workbench import Workbench, now
from states import events as ev
from states.errors import PikaciError
from states.job import Job, step
from states.lifecycle import State
from states.outcome import Failure, FailureKind, Outcome, Verdict

MAX_RETRY_DELAY_SECS = 30.0
# A cancelled job is dead and its verdict written within 10 s; a slow delete is done later.
CANCEL_SECS = 8.0
CANCELLED_COLLECT_SECS = 3.0
CANCELLED_RELEASE_SECS = 30.0
# A create that was never answered may still appear for this long.
UNANSWERED_CREATE_SECS = 30.0
MAX_NOTED_WORD = 1000

_OUTCOMES = {
    GuestStatus.PASSED: Outcome.PASSED,
    GuestStatus.FAILED: Outcome.FAILED,
    GuestStatus.TIMED_OUT: Outcome.TIMED_OUT,
}
_MAY_RETRY = (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED, State.INSTANCE_READY)


class JobTask:
    """Drives a submitted job to its end. `snapshot` is the published directory.

    The job takes one of `slots` for as long as it lives; its guest's end needs none.
    """

    def __init__(
        self,
        bench: Workbench,
        job: Job,
        snapshot: str,
        images: Images,
        slots: trio.CapacityLimiter,
    ) -> None:
        self.job = job
        self._bench = bench
        self._snapshot = snapshot
        self._images = images
        self._slots = slots
        self._incus = bench.incus.observed(self._called)
        self._attempt: Attempt | None = None

    async def run(self) -> None:
        """Live until the job has ended and its lease, where that can be, is released."""
        # Not `except Cancelled`: what comes out of a nursery is a group of them.
        recorded = True
        try:
            async with self._slots:
                await self._live()
        except JournalError:
            recorded = False
            raise
        except Exception as error:
            await self._fail(_unforeseen(error))
        finally:
            with trio.CancelScope(shield=True):
                if recorded and not self.job.ended:
                    await self._end_cancelled()
                await self._release()

    async def _live(self) -> None:
        while not self.job.ended:
            try:
                await self._live_attempt()
            except JournalError:
                raise
            except PikaciError as fault:
                if not await self._retry(fault):
                    await self._fail(fault)

    async def _live_attempt(self) -> None:
        spec = self.job.spec
        assert spec is not None
        directory = self._bench.root.attempt_dir(self.job.id, self.job.attempt)
        await reset_artifacts(directory)
        await self._emit(ev.ArtifactsReset(**self._next(), artifacts=str(directory)))

        image = await self._images.find(spec.image)
        lease_ends = datetime.now(UTC) + timedelta(seconds=lease_secs(spec, self._bench.deadlines))
        plan = make_plan(
            spec,
            PlanContext(
                host=self._bench.host,
                owner=self._bench.journal.owner,
                run=self.job.run,
                job=self.job.id,
                name=self.job.name,
                attempt=self.job.attempt,
                snapshot=self._snapshot,
                commit=(self.job.snapshot and self.job.snapshot.commit) or "",
                fingerprint=image.fingerprint,
                lease_ends=lease_ends,
            ),
            deadlines=self._bench.deadlines,
        )
        attempt = self._attempt = Attempt(plan, directory, self._incus)
        # Intent first: a create that nobody remembers could not be undone.
        await self._emit(
            ev.LeaseOpened(**self._note(), instance=plan.instance, deadline=lease_ends)
        )
        await attempt.create()
        await self._emit(ev.DevicesConfigured(**self._next(), instance=plan.instance, image=image))
        await attempt.start()
        await self._emit(ev.InstanceReady(**self._next()))

        async def started() -> None:
            await self._emit(ev.Running(**self._next()))

        def on_log(chunk: bytes) -> None:
            self._bench.on_log(self.job.id, chunk)

        ended = await attempt.run(started, on_log)
        result = await attempt.collect(ended)
        if result.status not in _OUTCOMES or self.job.state is not State.RUNNING:
            raise NoResult(f"the runner could not run the command: {result.message}")
        await self._emit(
            ev.ResultCollected(
                **self._next(),
                outcome=_OUTCOMES[result.status],
                exit_code=result.exit_code,
                message=result.message,
                hint=result.hint,
                warnings=tuple(attempt.warnings),
            )
        )

    async def _retry(self, fault: PikaciError) -> bool:
        """Begin another attempt, if the fault and the spec's `retries` allow it."""
        assert self.job.spec is not None
        retryable = isinstance(fault, IncusError) and fault.retryable
        if (
            not retryable
            or self.job.state not in _MAY_RETRY
            or self.job.attempt > self.job.spec.retries
        ):
            return False
        delay = min(2.0**self.job.attempt, MAX_RETRY_DELAY_SECS) * random.uniform(0.5, 1.5)
        failure = self._failure(FailureKind.INFRASTRUCTURE, fault)
        await self._release()
        await self._emit(ev.Retried(**self._next(), failure=failure, delay_secs=round(delay, 3)))
        await trio.sleep(delay)
        return True

    async def _fail(self, fault: PikaciError) -> None:
        for warning in self._attempt.warnings if self._attempt else ():
            self._bench.journal.note(ev.Warned(**self._note(), message=warning))
        failure = self._failure(FailureKind.INFRASTRUCTURE, fault)
        await self._emit(ev.Failed(**self._next(), failure=failure))

    async def _end_cancelled(self) -> None:
        """Kill the job in its guest, save what there is of it, and say so; in bounded time."""
        phase = self.job.state
        await self._emit(ev.CancelRequested(**self._next(), reason="interrupted"))
        if not await self._stopped_by_runner(phase):
            # No runner to ask: the guest goes away, and whatever ran in it.
            await self._release()
        failure = Failure(kind=FailureKind.CANCELLED, phase=phase, message="cancelled: interrupted")
        await self._emit(ev.Cancelled(**self._next(), failure=failure))

    async def _stopped_by_runner(self, phase: State) -> bool:
        attempt = self._attempt
        if attempt is None or phase not in (State.INSTANCE_READY, State.RUNNING):
            return False
        stopped = False
        with trio.move_on_after(CANCEL_SECS):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hurry, attempt)
                    await attempt.cancel(now=self._bench.hurry.is_set())
                    stopped = True
                    nursery.cancel_scope.cancel()
            except* IncusError:
                pass
        if stopped:
            with trio.move_on_after(CANCELLED_COLLECT_SECS):
                try:
                    await attempt.collect(None)
                except PikaciError:
                    pass  # the log that was streamed is there already
        return stopped

    async def _hurry(self, attempt: Attempt) -> None:
        await self._bench.hurry.wait()
        await attempt.cancel(now=True)

    async def _release(self) -> None:
        """Delete the attempt's instance, or keep it for debugging; the lease says which."""
        attempt, self._attempt = self._attempt, None
        if attempt is None or attempt.create_answered is None:
            return
        plan = attempt.plan
        keep_secs = self._bench.keep_secs
        if keep_secs is not None and self.job.verdict not in (None, Verdict.PASSED):
            deadline = datetime.now(UTC) + timedelta(seconds=keep_secs)
            await self._emit(
                ev.LeaseKept(**self._note(), instance=plan.instance, deadline=deadline)
            )
            return
        cancelled = self.job.state in (State.CANCELLING, State.CANCELLED)
        with trio.move_on_after(CANCELLED_RELEASE_SECS if cancelled else float("inf")):
            try:
                released = await attempt.release()
                if not released and not cancelled:
                    await trio.sleep(UNANSWERED_CREATE_SECS)
                    attempt.create_answered = True
                    released = await attempt.release()
            except PikaciError as error:
                await self._emit(
                    ev.Warned(
                        **self._note(),
                        message=f"{plan.instance} is left to the next sweep: {error.brief}",
                    )
                )
                return
            if released:
                await self._emit(ev.LeaseEnded(**self._note(), instance=plan.instance))

    async def _emit(self, *entries: ev.Entry) -> None:
        """Make the entries durable, and move the job by those that are events."""
        job = self.job
        for entry in entries:
            if isinstance(entry, ev.Event):
                job = step(job, entry)
        await self._bench.journal.append(*entries)
        self.job = job

    def _next(self) -> dict[str, Any]:
        return {"job": self.job.id, "seq": self.job.seq + 1, **now()}

    def _note(self) -> dict[str, Any]:
        return {"job": self.job.id, **now()}

    def _failure(self, kind: FailureKind, fault: PikaciError) -> Failure:
        message = "\n".join(part for part in (fault.brief, fault.details) if part)
        return Failure(
            kind=kind, phase=self.job.state, message=message, resolution=fault.resolution
        )

    def _called(self, call: Call) -> None:
        self._bench.journal.note(
            ev.Called(
                **self._note(),
                argv=tuple(_clipped(word) for word in call.argv),
                duration_ms=round(call.duration_secs * 1000, 3),
                exit_code=call.exit_code,
                error=call.error,
            )
        )


def _unforeseen(error: Exception) -> PikaciError:
    """What no effect told as a fault: the host's own disk, or a bug."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    if isinstance(cause, OSError):
        return PikaciError(
            f"the host could not store what the job gave: {cause}",
            resolution="look at the space and the permissions of the state root's disk",
        )
    return PikaciError(
        f"internal error: {cause!r}",
        resolution="this is a bug of pikaci: please report it with `pikaci trace`",
    )


def _clipped(word: str) -> str:
    # The whole command stands in the spec already; a trace need not hold it at every call.
    return word if len(word) <= MAX_NOTED_WORD else word[:MAX_NOTED_WORD] + "..."
