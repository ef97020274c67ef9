"""The life of one job: performs effects, and passes the resulting events to `states`.

Each state has one effect, whose event leads to the next state. So a job that a dead process left in
any state continues from there like any other. Every event is in the journal before the next effect
begins. An infrastructure fault is an event too, never an exception. A task raises only a
cancellation, after the job was cancelled, and the errors of a journal that cannot be written.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import trio

from orchestrator.attempt import certificates
from orchestrator.attempt import effects as commands
from orchestrator.attempt.attempt import Attempt, reset_artifacts
from orchestrator.attempt.end import end_in_guest
from orchestrator.attempt.evidence import NoResult
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.lease import HeldLease
from orchestrator.attempt.outside import reaches_outside
from orchestrator.attempt.plan import Plan, PlanContext, instance_name, lease_secs, make_plan, nonce
from orchestrator.attempt.result import GuestStatus
from orchestrator.attempt.secrets import SecretMissing
from orchestrator.attempt.way_out import WayOut
from orchestrator.egress.host_proxy import HostProxies
from orchestrator.errors import cause_of, unforeseen
from orchestrator.host_paths import directories
from orchestrator.image.store import Images, needs_egress
from orchestrator.incus import Stdin
from orchestrator.incus.errors import IncusError
from orchestrator.incus.retries import limit, retrying
from orchestrator.job.context import Context
from orchestrator.job.mirrors import Mirrors, host_mirrors
from orchestrator.job.queue import Queue
from orchestrator.job.record import Record
from orchestrator.journal import JournalError, Lease, NotTheWriter
from orchestrator.slow_files import look_up
from states import events as ev
from states.ending import Action, Intent, end_plan, release_plan
from states.errors import PikaciError, SpecError
from states.events import ImageRef
from states.job import Job
from states.lease import LeaseState, taken_over
from states.lifecycle import State
from states.outcome import Failure, FailureKind, Outcome, Verdict
from states.spec import JobSpec

MAX_RETRY_DELAY_SECS = 30.0
CANCELLED_RELEASE_SECS = 30.0
# A guest gets one of some thousand id maps. After this many taken ones, nearly all must be taken.
MAX_SAME_IDS = 8

_OUTCOMES = {
    GuestStatus.PASSED: Outcome.PASSED,
    GuestStatus.FAILED: Outcome.FAILED,
    GuestStatus.TIMED_OUT: Outcome.TIMED_OUT,
}
_MAY_RETRY = (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED, State.INSTANCE_READY)


class JobTask:
    """Drives a submitted job to its end, from any state.

    The job holds a slot of `queue` until it has ended; the cleanup of its guest needs none.
    `leases` are those that a dead process left open for it. An `adopted` job whose command cannot
    start, because this process lacks a secret, is left to a process that has it. `settled` is set
    when the verdict is in the journal, or this process will not write it.
    """

    def __init__(
        self,
        context: Context,
        job: Job,
        images: Images,
        queue: Queue,
        *,
        leases: Sequence[Lease] = (),
        adopted: bool = False,
    ) -> None:
        self.settled = trio.Event()
        self.intent = IntentSwitch(context.intent)
        self._record = Record(context.journal, job)
        self._context = context
        self._images = images
        self._queue = queue
        self._adopted = adopted
        self._incus = context.incus.observed(self._record.called)
        self._slot: AbstractAsyncContextManager[None] | None = None
        self._attempt: Attempt | None = None
        # By attempt: the current one, and earlier ones whose instance may still appear.
        self._leases: dict[int, HeldLease] = {}
        self._scope = trio.CancelScope()
        self._reason = "interrupted"
        self._same_ids = 0
        # Until this process publishes them, rely on the one that made the guest.
        self._certificates = str(context.root.certificates)
        self._mirrors: Mirrors | None = None
        self._adopt(leases)

    @property
    def job(self) -> Job:
        """The job as the journal has it."""
        return self._record.job

    def enqueue(self) -> None:
        """Queue the job before `run`, which must follow. Slots are granted in order of the calls.

        Without this call, `run` queues the job; but tasks started together run in any order.
        """
        since = trio.current_time()
        self._slot = self._queue.slot(
            self.job,
            waited=lambda after: self._record.waited(ev.WaitFor.PLACE, since, after=after),
        )

    def cancel(self, reason: str, *, now: bool = False) -> None:
        """Cancel the job; `now` skips the grace period. Calling it twice is harmless."""
        if not self._scope.cancel_called:
            self._reason = reason
        self.intent.rise(Intent.CANCEL_NOW if now else Intent.CANCEL)
        self._scope.cancel()

    async def run(self) -> None:
        """Run until the job has ended and its leases, as far as possible, are released."""
        try:
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
                if self._slot is None:
                    self.enqueue()
                assert self._slot is not None
                async with self._slot:
                    await self._live()
        except Exception as error:
            cause = cause_of(error)
            if isinstance(cause, JournalError | SecretMissing):
                ours = False
                raise cause from error
            await self._fail(unforeseen(cause))
        finally:
            if ours:
                with trio.CancelScope(shield=True):
                    await self._end()

    async def _live(self) -> None:
        while not self.job.ended and self.job.state is not State.CANCELLING:
            try:
                await self._next_effect()
            except JournalError:
                raise
            except PikaciError as fault:
                if self._adopted and isinstance(fault, SecretMissing):
                    raise
                if not await self._retry(fault):
                    await self._fail(fault)

    async def _next_effect(self) -> None:
        match self.job.state:
            case State.SUBMITTED:
                await self._reset()
            case State.ARTIFACTS_RESET if self._attempt is None:
                await self._create()
            case State.DEVICES_CONFIGURED if self._the_attempt().plan.can_start(datetime.now(UTC)):
                await self._start()
            case State.ARTIFACTS_RESET | State.DEVICES_CONFIGURED:
                # The instance was left unfinished, or for so long that its guest would shut itself
                # down too early. Delete it; the new attempt's instance has a new name.
                await self._let_attempt_go()
                await self._record.emit(ev.Restarted(**self._record.next()))
            case _:
                await self._run_command()

    async def _reset(self) -> None:
        assert self.job.spec is not None
        if self._adopted:
            # It was accepted by the rules of its day, but must obey the current ones to start.
            try:
                self._context.journal.judge(self.job.id)
            except SpecError as error:
                raise PikaciError(
                    f"another version of pikaci accepted the job, this one refuses it: {error}",
                    resolution=error.resolution or "change it, and submit it again",
                ) from None
        directory = self._context.root.attempt_dir(self.job.id, self.job.attempt)
        await reset_artifacts(directory, secs=self.job.spec.deadlines.reset_secs)
        await self._record.emit(ev.ArtifactsReset(**self._record.next(), artifacts=str(directory)))

    async def _create(self) -> None:
        spec = self.job.spec
        assert spec is not None
        image = await retrying(
            lambda: self._find_image(spec),
            on=commands.AWAY_OR_UNKNOWN,
            secs=spec.deadlines.daemon_secs,
        )
        needs_egress(image, spec)
        if warning := self._images.lacks(image, self.job.run):
            self._record.warn(warning)
        await self._look_outside(spec)
        keep_secs = self._context.keep_secs or 0
        lease_ends = datetime.now(UTC) + timedelta(seconds=lease_secs(spec) + max(keep_secs, 0))
        number = self.job.attempt
        attempt = self._attempt = self._make_attempt(number, image, lease_ends)
        lease = self._leases[number] = self._make_lease(attempt.plan, LeaseState.INTENDED)
        await lease.open(lease_ends)
        document = commands.create_document(attempt.plan)
        await lease.create(commands.create(attempt.plan, stdin=self._when_mounts_hold(document)))
        await self._record.emit(
            ev.DevicesConfigured(**self._record.next(), instance=lease.instance, image=image)
        )

    async def _start(self) -> None:
        attempt = self._the_attempt()
        # Only now does Incus mount what the instance was created with.
        other = await attempt.start(stdin=self._when_mounts_hold(b""))
        if not other:
            await self._record.emit(ev.InstanceReady(**self._record.next()))
            return
        self._same_ids += 1
        if self._same_ids > MAX_SAME_IDS:
            raise PikaciError(
                f"no free id map was found for the guest: {other} uses ids of the last one tried",
                resolution="an instance whose security.idmap.size covers nearly the whole range"
                " leaves none for others: see `incus config show`",
            )
        # The next attempt's instance has another name, and so another map.
        await self._let_attempt_go()
        reason = f"{other} uses ids of the guest's id map"
        await self._record.emit(ev.Restarted(**self._record.next(), reason=reason))

    def _when_mounts_hold(self, data: bytes) -> Stdin:
        """These bytes, if the job may still mount its directories; `PikaciError` if not."""
        spec = self.job.spec
        assert spec is not None

        async def stdin() -> bytes:
            if not directories(spec):
                return data
            check = partial(self._context.mount_rule.check_again, spec)
            try:
                await look_up("a directory of the job", check)
            except SpecError as error:
                brief = f"{error.key}: {error.brief}"
                raise PikaciError(brief, resolution=error.resolution) from None
            return data

        return stdin

    async def _look_outside(self, spec: JobSpec) -> None:
        """Find out what a job that reaches the outside gets of its host."""
        if not reaches_outside(spec):
            return
        directory = self._context.root.certificates

        def look() -> tuple[Mirrors, str]:
            if spec.egress:
                HostProxies(os.environ)  # raises what would fail every connection
            mirrors = Mirrors()
            if spec.host_mirrors:
                mirrors = host_mirrors(os.environ, home=Path.home())
            return mirrors, certificates.publish(directory, os.environ, mirrors.sources)

        self._mirrors, self._certificates = await look_up("the host's settings", look)

    async def _find_image(self, spec: JobSpec) -> ImageRef:
        since = trio.current_time()
        try:
            with limit("looking up the image", spec.deadlines.image_secs, setting="image_secs"):
                return await self._images.find(spec.image, spec.instance_type)
        finally:
            self._record.waited(ev.WaitFor.IMAGE, since)
        raise AssertionError("unreachable")

    async def _run_command(self) -> None:
        assert self.job.spec is not None
        if self.job.spec.host_mirrors and self._mirrors is None:
            # The process that made the guest knew them; this one plans the command anew.
            await self._look_outside(self.job.spec)
            lease_ends = self._the_attempt().plan.lease_ends
            self._attempt = self._make_attempt(self.job.attempt, self.job.image, lease_ends)
        attempt = self._the_attempt()

        async def started() -> None:
            # After a retried exec the first line comes again.
            if self.job.state is State.INSTANCE_READY:
                await self._record.emit(ev.Running(**self._record.next()))

        async with self._way_out(attempt) as way_out:
            ended = await attempt.run(
                started,
                lambda chunk: self._context.on_log(self.job.id, chunk),
                running=self.job.state is State.RUNNING,
                secs=self._run_secs(attempt.plan),
            )
            result = await attempt.evidence.collect(ended)
            if way_out is not None:
                await way_out.settle()
        if result.status not in _OUTCOMES:
            raise NoResult(f"the runner could not run the command: {result.message}")
        if way_out is not None and way_out.harm and result.status is not GuestStatus.PASSED:
            raise NoResult(
                f"the job had no way out {way_out.harm}; then its command {result.status}"
                f" ({result.message})",
                resolution="submit the job again",
            )
        await started()  # a result proves that the command started, even if its first line was lost
        await self._record.emit(
            ev.ResultCollected(
                **self._record.next(),
                outcome=_OUTCOMES[result.status],
                exit_code=result.exit_code,
                message=result.message,
                hint=result.hint,
                warnings=tuple(attempt.evidence.warnings),
            )
        )

    @asynccontextmanager
    async def _way_out(self, attempt: Attempt) -> AsyncIterator[WayOut | None]:
        """The way out of a job with `egress`, None for any other."""
        if not attempt.plan.egress:
            yield None
            return
        way_out = WayOut(
            attempt.plan,
            self._incus,
            f"jobs.{self.job.name}.egress",
            write=self._record.connected,
            gap=self._record.gap,
            warn=self._record.warn,
        )
        async with way_out.open(running=self.job.state is State.RUNNING):
            yield way_out

    def _run_secs(self, plan: Plan) -> float:
        """What is left of the host's limit; at least the margin, for a job that is adopted late."""
        if self.job.state is not State.RUNNING:
            return plan.run_deadline_secs
        spent = (datetime.now(UTC) - self.job.phases[-1].entered_at).total_seconds()
        left = plan.run_deadline_secs - max(0.0, spent)
        return max(left, float(plan.deadlines.run_margin_secs))

    # The attempt: new, or taken over.

    def _make_attempt(self, number: int, image: ImageRef | None, lease_ends: datetime) -> Attempt:
        job, context = self.job, self._context
        assert job.spec is not None
        assert job.snapshot is not None
        plan = make_plan(
            job.spec,
            PlanContext(
                host=context.host,
                owner=context.journal.owner,
                run=job.run,
                job=job.id,
                name=job.name,
                attempt=number,
                snapshot=str(context.root.snapshots / job.snapshot.hash),
                commit=job.snapshot.commit or "",
                fingerprint=image.fingerprint if image else "",
                lease_ends=lease_ends,
                ids=context.ids,
                certificates=self._certificates,
                mirrors=dict(self._mirrors.variables) if self._mirrors else {},
                mirror_hosts=self._mirrors.hosts if self._mirrors else (),
            ),
        )
        return Attempt(
            plan,
            context.root.attempt_dir(job.id, number),
            self._incus,
            nonce(context.journal.key, plan.instance),
        )

    def _make_lease(self, plan: Plan, state: LeaseState) -> HeldLease:
        return HeldLease(
            self._context.journal,
            self._incus,
            job=self.job.id,
            instance=plan.instance,
            delete=commands.delete(plan),
            state=state,
        )

    def _adopt(self, leases: Sequence[Lease]) -> None:
        """Take over the instances that a dead process created or requested."""
        names = {
            instance_name(self._context.journal.owner, self.job.id, number): number
            for number in range(1, self.job.attempt + 1)
        }
        for row in leases:
            number = names[row.instance]
            current = number == self.job.attempt
            image = self.job.image if current else None
            attempt = self._make_attempt(number, image, row.deadline)
            state = taken_over(made=row.made, kept=row.kept)
            self._leases[number] = self._make_lease(attempt.plan, state)
            if current:
                self._attempt = attempt

    def _the_attempt(self) -> Attempt:
        if self._attempt is None:
            # Another process ended its lease; the next call will report that it is gone.
            self._attempt = self._make_attempt(self.job.attempt, self.job.image, datetime.now(UTC))
        return self._attempt

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
        await self._let_attempt_go()
        await self._record.emit(
            ev.Retried(**self._record.next(), failure=failure, delay_secs=round(delay, 3))
        )
        await trio.sleep(delay)
        return True

    async def _fail(self, fault: PikaciError) -> None:
        for warning in self._attempt.evidence.warnings if self._attempt else ():
            self._record.warn(warning)
        failure = self._record.failure(fault)
        await self._record.emit(ev.Failed(**self._record.next(), failure=failure))

    # The end of the job and of its instances, as `end_plan` decides.

    async def _let_attempt_go(self) -> None:
        """Delete the attempt's instance, before another attempt begins.

        An instance that cannot be deleted now, or may still appear, is deleted at the job's end.
        """
        lease = self._leases.get(self.job.attempt)
        if lease is not None:
            action = release_plan(lease.state, self.intent.value)
            if action in (Action.DELETE, Action.RELEASE):
                await lease.do(action, self.intent)
        # Not earlier: if this is cancelled, the job's end deletes the instance.
        self._attempt = None

    async def _end(self) -> None:
        if not self.job.ended:
            self.intent.rise(Intent.CANCEL)
        lease = self._leases.get(self.job.attempt)
        failed: set[Action] = set()
        while True:
            if self.job.ended:
                self.settled.set()
            action = end_plan(
                self.job.state,
                self._state_before_cancel(),
                lease.state if lease else None,
                self.intent.value,
                keep=self._keeps_guest(),
                failed=failed | (lease.failed if lease else set()),
            )
            if action in (Action.DONE, Action.LEAVE):
                break
            await self._do(action, lease, failed)
        for number, earlier in self._leases.items():
            if number != self.job.attempt:
                await earlier.let_go(self.intent)

    async def _do(self, action: Action, lease: HeldLease | None, failed: set[Action]) -> None:
        record = self._record
        match action:
            case Action.REQUEST:
                await record.emit(ev.CancelRequested(**record.next(), reason=self._reason))
            case Action.KILL:
                if not await end_in_guest(self._the_attempt(), self.intent):
                    failed.add(action)
                    return
                await self._confirm()
            case Action.CONFIRM:
                await self._confirm()
            case Action.KEEP:
                assert lease is not None
                keep = timedelta(seconds=self._context.keep_secs or 0)
                await lease.keep(datetime.now(UTC) + keep)
            case _:
                assert lease is not None
                cancelled = self.job.state in (State.CANCELLING, State.CANCELLED)
                secs = CANCELLED_RELEASE_SECS if cancelled else float("inf")
                await lease.do(action, self.intent, secs=secs)

    async def _confirm(self) -> None:
        failure = Failure(
            kind=FailureKind.CANCELLED,
            phase=self._state_before_cancel(),
            message=f"cancelled: {self._reason}",
        )
        await self._record.emit(ev.Cancelled(**self._record.next(), failure=failure))

    def _state_before_cancel(self) -> State:
        job = self.job
        return job.phases[-2].state if job.state is State.CANCELLING else job.state

    def _keeps_guest(self) -> bool:
        return self._context.keep_secs is not None and self.job.verdict not in (
            None,
            Verdict.PASSED,
        )
