"""The attempts at one job and the leases of their instances: new ones, or taken over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.attempt import Attempt
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.lease import HeldLease
from orchestrator.attempt.plan import Plan, PlanContext, instance_name, make_plan, nonce
from orchestrator.hosts import Members, Tree
from orchestrator.incus.errors import DaemonUnreachable, IncusError, MemberOffline
from orchestrator.job.context import Context, JobHost
from orchestrator.job.outside import Outside
from orchestrator.job.record import Record
from orchestrator.job.warm_guest import WarmGuest
from orchestrator.journal import Lease
from states.ending import Action, Intent, release_plan
from states.errors import PikaciError
from states.events import ImageRef
from states.lease import LeaseState, taken_over


class Attempts:
    """Makes the attempts at a job, one at a time, each with an instance of its own.

    `leases` are those that a dead process left open for the job. `begun` is the current attempt; it
    is None before its instance is requested, and after the lease of a taken-over one has ended.
    `member` is the member of the cluster that has, or is to have, that instance; "" where Incus is
    no cluster.
    """

    def __init__(
        self,
        context: Context,
        record: Record,
        intent: IntentSwitch,
        leases: Sequence[Lease],
        outside: Outside,
    ) -> None:
        self.begun: Attempt | None = None
        self.member = record.job.member
        self._context = context
        self._record = record
        self._intent = intent
        self._outside = outside
        self._left: set[str] = set()  # members that attempts were lost with
        self._placed_at = trio.current_time()
        # By attempt: the current one, and earlier ones whose instance may still appear.
        self._leases: dict[int, HeldLease] = {}
        self._take_over(leases)

    @property
    def _there(self) -> JobHost:
        # Not before it is asked for: a job with a choice has no host at first.
        return self._context.at(self._record.job.host)

    @property
    def _members(self) -> Members | None:
        return self._there.members

    @property
    def lease(self) -> HeldLease | None:
        """The lease of the current attempt's instance, None if it has none."""
        return self._leases.get(self._record.job.attempt)

    def current(self) -> Attempt:
        """The current attempt, of a job whose instance was requested."""
        if self.begun is None:
            # Another process ended its lease; the next call will report that it is gone.
            job = self._record.job
            self.begun = self._make(
                job.attempt, job.image, datetime.now(UTC), job.member, instance=job.instance or ""
            )
        return self.begun

    async def has_ended(self) -> bool:
        """Whether the current attempt's instance was released, by a process that died since.

        Its name is used up: there must be another attempt.
        """
        job, journal = self._record.job, self._context.journal
        name = instance_name(journal.owner, job.id, job.attempt)
        return self.begun is None and await trio.to_thread.run_sync(journal.had_lease, name)

    def plan_again(self) -> None:
        """Plan the current attempt anew, in its instance, with what is known of the outside now."""
        job, plan = self._record.job, self.current().plan
        self.begun = self._make(
            job.attempt, job.image, plan.lease_ends, plan.member, instance=plan.instance
        )

    async def place(self) -> None:
        """Choose the `member` of the cluster for the current attempt.

        Waits for one that takes guests. Raises `NoMember`, or an `IncusError`.
        """
        job = self._record.job
        if self._members is None:
            return
        assert job.spec is not None
        self.member = await self._members.place(
            job.id,
            avoid=self._left,
            secs=job.spec.deadlines.daemon_secs,
            say=self._record.warn,
        )
        self._placed_at = trio.current_time()

    def take_warm(self, image: ImageRef, lease_ends: datetime) -> WarmGuest | None:
        """A warm guest for the current attempt, which must `begin` with it at once."""
        job, context = self._record.job, self._context
        if context.pool is None:
            return None
        about = self._about(job.attempt, image, lease_ends, self.member, self._there, instance="")
        return context.pool.take(context.resolved(job), about)

    def begin(
        self, image: ImageRef, lease_ends: datetime, warm: WarmGuest | None = None
    ) -> tuple[Plan, HeldLease]:
        """Begin the current attempt: its plan, and the lease, which is to be opened.

        That of a `warm` guest is to be claimed.
        """
        number = self._record.job.attempt
        name = warm.plan.instance if warm else ""
        self.begun = self._make(number, image, lease_ends, self.member, instance=name)
        self.begun.has_looked = warm is not None
        plan = self.begun.plan
        state = LeaseState.WARM if warm else LeaseState.INTENDED
        lease = self._leases[number] = self._make_lease(plan, self._record.job.host, state)
        return plan, lease

    def trees(self) -> list[Tree]:
        """What the guest of the next attempt will mount, as directories of this machine."""
        job, context = self._record.job, self._context
        outputs = [ref for ref in job.inputs.values() if not ref.fingerprint]
        return [
            context.snapshot_tree(job),
            *map(context.output_tree, outputs),
            *self._outside.trees,
        ]

    async def let_go(self, *, within_secs: float = math.inf) -> None:
        """Delete the current attempt's instance, before another attempt begins.

        An instance that cannot be deleted now, or may still appear, is deleted at the job's end, or
        by upkeep when its host answers.
        """
        lease = self.lease
        if lease is not None:
            action = release_plan(lease.state, self._intent.value)
            if action in (Action.DELETE, Action.RELEASE):
                await lease.do(action, self._intent, secs=within_secs)
        # Not earlier: if this is cancelled, the job's end deletes the instance.
        self.begun = None
        self.member = ""
        if self._record.job.choice:
            self.leave()  # the next attempt may be on another host

    async def why_lost(self, fault: PikaciError) -> str:
        """Why the current attempt is lost with its member, in words; "" if that is well.

        The fault may be anything that came of it: a guest that stopped, a call that got no answer.
        """
        member = self.member
        if self._members is None or not member:
            return ""
        try:
            await self._members.look()
        except IncusError:
            return ""  # it is the whole cluster
        why = self._members.was_away(member, since=self._placed_at)
        if not why and isinstance(fault, DaemonUnreachable | MemberOffline):
            why = f"the member {member} of the cluster does not answer"
        if why:
            self._left.add(member)
        return why

    def leave(self) -> None:
        """The job no longer uses its member's slot."""
        if self._record.job.hosts:
            return  # it has no host now
        if self._members is not None:
            self._members.leave(self._record.job.id)

    async def let_earlier_go(self) -> None:
        """Delete the instances of earlier attempts, as far as possible now."""
        for number, lease in self._leases.items():
            if number != self._record.job.attempt:
                await lease.let_go(self._intent)

    def _take_over(self, leases: Sequence[Lease]) -> None:
        """Take over the instances that a dead process created or requested."""
        job = self._record.job
        names = {
            instance_name(self._context.journal.owner, job.id, number): number
            for number in range(1, job.attempt + 1)
        }
        for row in leases:
            number = row.attempt or names[row.instance]
            current = number == job.attempt
            image = job.image if current else None
            attempt = self._make(
                number, image, row.deadline, row.member, row.host, instance=row.instance
            )
            if current and row.member and self._members is not None:
                self.member = row.member  # the create call may not have been answered
                self._members.resume(job.id, row.member)
            state = taken_over(made=row.made, kept=row.kept)
            self._leases[number] = self._make_lease(attempt.plan, row.host, state)
            if current:
                self.begun = attempt

    def _make(
        self,
        number: int,
        image: ImageRef | None,
        lease_ends: datetime,
        member: str,
        host: str | None = None,
        *,
        instance: str,
    ) -> Attempt:
        """An attempt, on the job's host, or on the one with this name, "" for the local one.

        `instance` is the name of its instance, "" for that of one that is made for it.
        """
        job, context = self._record.job, self._context
        there = self._there if host is None else context.at(host)
        plan = make_plan(
            context.resolved(job),
            self._about(number, image, lease_ends, member, there, instance=instance),
        )
        return Attempt(
            plan,
            context.root.attempt_dir(job.id, number),
            there.reaching(member).observed(self._record.called),
            nonce(context.journal.key, plan.instance),
            there.neighbours,
        )

    def _about(
        self,
        number: int,
        image: ImageRef | None,
        lease_ends: datetime,
        member: str,
        there: JobHost,
        *,
        instance: str,
    ) -> PlanContext:
        job, context = self._record.job, self._context
        assert job.snapshot is not None
        return PlanContext(
            host=there.host,
            owner=context.journal.owner,
            run=job.run,
            job=job.id,
            name=job.name,
            attempt=number,
            snapshot=there.trees.place(context.snapshot_tree(job)),
            commit=job.snapshot.commit or "",
            fingerprint=image.fingerprint if image else "",
            lease_ends=lease_ends,
            ids=context.ids if there.host.is_local else None,
            member=member,
            instance=instance,
            **self._outside.of_plan,
        )

    async def _hurry(self) -> None:
        await self._intent.reaches(Intent.CANCEL_NOW, within_secs=float("inf"))
        await trio.sleep(commands.HURRIED_SECS)

    def _make_lease(self, plan: Plan, host: str, state: LeaseState) -> HeldLease:
        incus = self._context.at(host).reaching(plan.member).observed(self._record.called)
        return HeldLease(
            self._context.journal,
            incus.hurried(self._hurry),
            job=self._record.job.id,
            instance=plan.instance,
            host=host,
            delete=commands.delete(plan),
            hand_over=() if self._context.waits_for_delete else commands.hand_over(plan),
            member=plan.member,
            state=state,
        )
