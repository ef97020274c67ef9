"""The steps of a job from submission to result: each state has one effect.

The effect's event leads to the next state. So a job that a dead process left in any state continues
from there like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.attempt import reset_artifacts
from orchestrator.attempt.boot import NotReady
from orchestrator.attempt.command import Watcher
from orchestrator.attempt.evidence import NoResult
from orchestrator.attempt.lease import HeldLease
from orchestrator.attempt.plan import Plan, lease_secs
from orchestrator.attempt.result import GuestStatus
from orchestrator.attempt.same_ids import SameIds
from orchestrator.attempt.sources import naming_source
from orchestrator.attempt.warm import change
from orchestrator.errors import first_error
from orchestrator.host_paths import directories
from orchestrator.image.store import check_age
from orchestrator.incus import Effect, Stdin
from orchestrator.incus.errors import IncusError, NameTaken
from orchestrator.incus.retries import retrying
from orchestrator.job.attempts import Attempts
from orchestrator.job.context import Context, JobHost
from orchestrator.job.image import job_image
from orchestrator.job.output import JobOutput
from orchestrator.job.outside import Outside
from orchestrator.job.record import NoLongerAccepted, Record
from orchestrator.job.warm_guest import WarmGuest
from orchestrator.journal import JournalError
from orchestrator.outputs.tree import BadOutput
from orchestrator.slow_files import look_up
from states import events as ev
from states.errors import PikaciError, SpecError
from states.events import OutputRef
from states.lifecycle import State
from states.outcome import Outcome
from states.spec import keep_secs

# A guest gets one of some thousand id maps. After this many taken ones, nearly all must be taken.
MAX_SAME_IDS = 8
# Nor may a job go on for ever with a daemon that ends in each of its creates.
MAX_BROKEN_OFF = 3

_OUTCOMES = {
    GuestStatus.PASSED: Outcome.PASSED,
    GuestStatus.FAILED: Outcome.FAILED,
    GuestStatus.TIMED_OUT: Outcome.TIMED_OUT,
}


class MountChanged(PikaciError):
    """A directory is no longer the one that the job may mount."""


class NotPlugged(PikaciError):
    """A warm guest did not get the devices of its job."""


class Steps:
    """Performs the effects of a job's states. An `adopted` job obeys today's rules to start.

    `inputs` returns the outputs that the job uses, by job.
    """

    def __init__(
        self,
        context: Context,
        record: Record,
        attempts: Attempts,
        outside: Outside,
        inputs: Callable[[], dict[str, OutputRef]],
        *,
        adopted: bool,
    ) -> None:
        self._context = context
        self._record = record
        self._attempts = attempts
        self._outside = outside
        self._inputs = inputs
        self._adopted = adopted
        self._same_ids = 0
        self._broken_off = 0
        self._just_started = False  # the current attempt's guest, by this process
        self._cold = False  # a warm guest was of no use

    @property
    def _there(self) -> JobHost:
        # Not before it is asked for: a job with a choice has no host at first.
        return self._context.at(self._record.job.host)

    async def next(self) -> None:
        """Perform the effect of the job's state, and record the event that follows.

        Raises a `PikaciError` if the effect failed.
        """
        match self._record.job.state:
            case State.SUBMITTED:
                await self._reset()
            case State.ARTIFACTS_RESET if self._attempts.begun is None:
                await self._create()
            case State.DEVICES_CONFIGURED if self._can_start():
                await self._boot_and_run()
            case State.ARTIFACTS_RESET | State.DEVICES_CONFIGURED:
                # The instance was left unfinished, or for so long that its guest would shut itself
                # down too early. Delete it; the new attempt's instance has a new name.
                await self._attempts.let_go()
                await self._record.emit(ev.Restarted(**self._record.next()))
            case State.PUBLISHING:
                await self._publish()
            case _:
                await self._run_command()

    def _can_start(self) -> bool:
        return self._attempts.current().plan.can_start(datetime.now(UTC))

    async def _reset(self) -> None:
        assert self._record.job.spec is not None
        if self._adopted:
            # It was accepted by the rules of its day, but must obey the current ones to start.
            try:
                self._context.journal.judge(self._record.job.id)
            except SpecError as error:
                raise NoLongerAccepted(
                    "another version of pikaci accepted the job, this one refuses it:"
                    f" {error.headline}",
                    resolution=error.resolution or "change it, and submit it again",
                ) from None
        directory = self._context.root.attempt_dir(self._record.job.id, self._record.job.attempt)
        await reset_artifacts(directory, secs=self._record.job.spec.deadlines.reset_secs)
        await self._record.emit(
            ev.ArtifactsReset(
                **self._record.next(),
                artifacts=str(directory),
                inputs=self._inputs(),
                host=self._record.job.host,
            )
        )

    async def _create(self) -> None:
        spec = self._record.job.spec
        assert spec is not None
        if self._adopted and await self._attempts.has_ended():
            await self._record.emit(ev.Restarted(**self._record.next()))
            return
        resolved = self._context.resolved(self._record.job)
        image = await job_image(self._there.images, self._record, resolved)
        check_age(image, spec)
        if warning := self._there.images.lacks(image, self._record.job.run):
            self._record.warn(warning)
        await self._outside.look()
        await self._attempts.place()
        secs = lease_secs(spec) + max(keep_secs(spec, self._context.keep_secs) or 0, 0)
        await self._deliver(secs)
        now = datetime.now(UTC)
        lease_ends = now + timedelta(seconds=secs)
        warm = None if self._cold else self._attempts.take_warm(image, lease_ends)
        if warm is None and self._context.pool is not None:
            await self._context.pool.make_room(self._there.host.name)
        plan, lease = self._attempts.begin(image, now, lease_ends, warm)

        async def configured() -> None:
            await self._record.emit(
                ev.DevicesConfigured(
                    **self._record.next(),
                    instance=lease.instance,
                    image=image,
                    member=plan.member,
                    warm_ms=None if warm is None else warm.boot_ms,
                )
            )

        if warm is not None:
            await self._claim(warm, lease)
            await self._plug_and_run(commands.hot_plug(plan, change(warm.plan, plan)), configured)
        elif await self._launch(plan, lease):
            self._just_started = True
            await configured()

    async def _launch(self, plan: Plan, lease: HeldLease) -> bool:
        """Make the instance and start it; False if there must be another attempt."""
        await lease.open(plan.lease_ends)
        document = commands.create_document(plan)
        try:
            async with naming_source(plan):
                await lease.create(commands.create(plan, stdin=self._when_mounts_hold(document)))
        except NameTaken as taken:
            # By an earlier try of this call, which the daemon's end broke off: perhaps in the
            # middle of the guest's files. So it is never started.
            self._broken_off += 1
            if self._broken_off > MAX_BROKEN_OFF:
                raise
            await self._restart(f"a launch of the instance was interrupted: {taken.brief}")
            return False
        return True

    async def _claim(self, warm: WarmGuest, lease: HeldLease) -> None:
        try:
            plan = self._attempts.current().plan
            await lease.claim(self._record.job.attempt, plan.lease_ends)
        except JournalError:
            assert self._context.pool is not None
            self._context.pool.abandon(warm)
            raise

    async def _plug_and_run(
        self, effect: Effect, configured: Callable[[], Awaitable[None]]
    ) -> None:
        """Bring a warm guest the job's devices by this effect, and run the command in it.

        The exec starts meanwhile. It waits in the guest until the devices are there and their
        event is recorded.
        """
        mounts_hold = self._when_mounts_hold(b"")
        plugged = trio.Event()

        async def plug() -> None:
            incus = self._there.incus.observed(self._record.called)
            try:
                await incus.perform(replace(effect, stdin=mounts_hold))
            except commands.AWAY:
                raise  # another guest would fare no better
            except IncusError as fault:
                raise NotPlugged(fault.brief, details=fault.details) from fault
            await configured()
            # They may have become others while Incus mounted them.
            await mounts_hold()
            plugged.set()

        try:
            with first_error(JournalError, MountChanged, NotPlugged, PikaciError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(plug)
                    await self._run_command(plugged)
        except MountChanged:
            # A kept guest would show what was mounted to whoever enters it.
            await self._attempts.let_go()
            raise
        except commands.EXEC_AWAY:
            raise  # another guest would fare no better
        except (NotPlugged, NotReady, IncusError) as fault:
            # Also what the exec ends with if the guest stops: it is said in many ways.
            if self._record.job.state not in (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED):
                raise
            self._cold = True
            await self._restart(f"its warm guest could not be used: {fault.brief}")

    async def _restart(self, reason: str) -> None:
        await self._attempts.let_go()
        await self._record.emit(ev.Restarted(**self._record.next(), reason=reason))

    async def _deliver(self, secs: float) -> None:
        """Bring what the guest will mount to its host, where it then stays for this long."""
        spec = self._record.job.spec
        assert spec is not None
        there = self._there.trees.observed(self._record.called)
        trees, member = self._attempts.trees(), self._attempts.member
        deliver = partial(there.deliver, trees, lease_secs=secs, member=member)
        await retrying(deliver, on=commands.AWAY_OR_UNKNOWN, secs=spec.deadlines.daemon_secs)

    async def _boot_and_run(self) -> None:
        attempt = self._attempts.current()
        mounts_hold = self._when_mounts_hold(b"")
        try:
            if not self._just_started:
                # Incus mounts anew what the instance was created with.
                await attempt.start_again(stdin=mounts_hold)
            self._just_started = False
            # They may have become others while Incus made the guest and mounted them.
            await mounts_hold()
        except MountChanged:
            # It must not be kept: who enters it would see what was mounted.
            await self._attempts.let_go()
            raise
        try:
            await self._run_command()
        except SameIds as same:
            await self._begin_with_other_ids(same)

    async def _begin_with_other_ids(self, same: SameIds) -> None:
        self._same_ids += 1
        if self._same_ids > MAX_SAME_IDS:
            raise PikaciError(
                f"no free id map was found for the guest: {same.other} uses ids of the last one"
                " tried",
                resolution="an instance whose security.idmap.size covers nearly the whole range"
                " leaves none for others: see `incus config show`",
            )
        # The next attempt's instance has another name, and so another map.
        await self._restart(same.brief)

    def _when_mounts_hold(self, data: bytes) -> Stdin:
        """These bytes, if the job may still mount its directories; `MountChanged` if not."""
        spec = self._record.job.spec
        assert spec is not None

        async def stdin() -> bytes:
            if not directories(spec):
                return data
            rule = self._context.mount_rule(self._there.host)
            check = partial(rule.check_again, spec)
            try:
                await look_up("a directory of the job", check)
            except SpecError as error:
                brief = f"{error.key}: {error.brief}"
                raise MountChanged(brief, resolution=error.resolution) from None
            return data

        return stdin

    async def _run_command(self, plugged: trio.Event | None = None) -> None:
        """Run the command; in a warm guest, not before it is `plugged`."""
        if self._outside.is_unknown:
            # The process that made the guest knew it; this one plans the command anew.
            await self._outside.look()
            self._attempts.plan_again()
        attempt = self._attempts.current()
        is_ready = trio.Event()

        async def ready() -> None:
            if plugged is not None:
                await plugged.wait()
            for warning in attempt.warnings:
                self._record.warn(warning)
            await self._record.emit(ev.InstanceReady(**self._record.next()))
            is_ready.set()

        async def started() -> None:
            # After a retried exec the first line comes again.
            if self._record.job.state is State.INSTANCE_READY:
                await self._record.emit(ev.Running(**self._record.next()))

        def log(chunk: bytes) -> None:
            self._context.on_log(self._record.job.id, chunk)

        if self._record.job.state not in (State.ARTIFACTS_RESET, State.DEVICES_CONFIGURED):
            is_ready.set()
        async with self._outside.way_out(attempt, is_ready) as way_out:
            ended = await attempt.run(
                Watcher(ready, started, log),
                is_ready=is_ready.is_set(),
                running=self._record.job.state is State.RUNNING,
                secs=self._run_secs(attempt.plan),
            )
            result = await attempt.evidence.collect(ended)
            if way_out is not None:
                await way_out.settle()
        if result.status not in _OUTCOMES:
            raise NoResult(f"the runner could not run the command: {result.message}")
        if way_out is not None and way_out.harm and result.status is not GuestStatus.PASSED:
            raise NoResult(
                f"the job had no egress {way_out.harm}; then its command {result.status}"
                f" ({result.message})",
                resolution="submit the job again",
            )
        await attempt.evidence.read_tests()
        await started()  # a result proves that the command started, even if its first line was lost
        passed = result.status is GuestStatus.PASSED
        reason = await attempt.evidence.find_reason(result)
        warnings = (*attempt.warnings, *attempt.evidence.warnings)
        if passed and attempt.plan.output is not None:
            event: ev.AnyEvent = ev.Publishing(
                **self._record.next(),
                warnings=warnings,
                tests=attempt.evidence.tests,
                usage=result.usage,
            )
        else:
            event = ev.ResultCollected(
                **self._record.next(),
                outcome=_OUTCOMES[result.status],
                exit_code=result.exit_code,
                message=result.message,
                hint=result.hint or ("" if passed else self._outside.hint),
                warnings=warnings,
                tests=attempt.evidence.tests,
                reason=reason,
                usage=result.usage,
            )
        await self._record.emit(event, cases=attempt.evidence.cases)

    async def _publish(self) -> None:
        record = self._record
        output: OutputRef | None = None
        outcome, message, hint = Outcome.PASSED, "test passed", ""
        try:
            publication = JobOutput(self._context, record)
            output = await publication.publish(self._attempts.current())
        except BadOutput as bad:
            outcome, hint = Outcome.FAILED, bad.resolution
            message = f"the command passed, but its output cannot be kept: {bad.brief}"
        await record.emit(
            ev.ResultCollected(
                **record.next(),
                outcome=outcome,
                exit_code=0,
                message=message,
                hint=hint,
                warnings=record.job.warnings,
                output=output,
                tests=record.job.tests,
                usage=record.job.usage,
            )
        )

    def _run_secs(self, plan: Plan) -> float:
        """What is left of the host's limit; at least the margin, for a job that is adopted late."""
        if self._record.job.state is not State.RUNNING:
            return plan.run_deadline_secs
        spent = (datetime.now(UTC) - self._record.job.phases[-1].entered_at).total_seconds()
        left = plan.run_deadline_secs - max(0.0, spent)
        return max(left, float(plan.deadlines.run_margin_secs))
