"""The attempts at one job and the leases of their instances: new ones, or taken over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.attempt import Attempt
from orchestrator.attempt.intents import IntentSwitch
from orchestrator.attempt.lease import HeldLease
from orchestrator.attempt.plan import Plan, PlanContext, instance_name, make_plan, nonce
from orchestrator.job.context import Context
from orchestrator.job.outside import Outside
from orchestrator.job.record import Record
from orchestrator.journal import Lease
from states.ending import Action, release_plan
from states.events import ImageRef
from states.lease import LeaseState, taken_over


class Attempts:
    """Makes the attempts at a job, one at a time, each with an instance of its own.

    `leases` are those that a dead process left open for the job. `begun` is the current attempt; it
    is None before its instance is requested, and after the lease of a taken-over one has ended.
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
        self._context = context
        self._record = record
        self._intent = intent
        self._outside = outside
        self._incus = context.incus.observed(record.called)
        # By attempt: the current one, and earlier ones whose instance may still appear.
        self._leases: dict[int, HeldLease] = {}
        self._take_over(leases)

    @property
    def lease(self) -> HeldLease | None:
        """The lease of the current attempt's instance, None if it has none."""
        return self._leases.get(self._record.job.attempt)

    def current(self) -> Attempt:
        """The current attempt, of a job whose instance was requested."""
        if self.begun is None:
            # Another process ended its lease; the next call will report that it is gone.
            job = self._record.job
            self.begun = self._make(job.attempt, job.image, datetime.now(UTC))
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
        job = self._record.job
        self.begun = self._make(job.attempt, job.image, self.current().plan.lease_ends)

    def begin(self, image: ImageRef, lease_ends: datetime) -> tuple[Plan, HeldLease]:
        """Begin the current attempt: its plan, and the lease, which is to be opened."""
        number = self._record.job.attempt
        self.begun = self._make(number, image, lease_ends)
        plan = self.begun.plan
        lease = self._leases[number] = self._make_lease(plan, LeaseState.INTENDED)
        return plan, lease

    async def let_go(self) -> None:
        """Delete the current attempt's instance, before another attempt begins.

        An instance that cannot be deleted now, or may still appear, is deleted at the job's end.
        """
        lease = self.lease
        if lease is not None:
            action = release_plan(lease.state, self._intent.value)
            if action in (Action.DELETE, Action.RELEASE):
                await lease.do(action, self._intent)
        # Not earlier: if this is cancelled, the job's end deletes the instance.
        self.begun = None

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
            number = names[row.instance]
            current = number == job.attempt
            attempt = self._make(number, job.image if current else None, row.deadline)
            state = taken_over(made=row.made, kept=row.kept)
            self._leases[number] = self._make_lease(attempt.plan, state)
            if current:
                self.begun = attempt

    def _make(self, number: int, image: ImageRef | None, lease_ends: datetime) -> Attempt:
        job, context = self._record.job, self._context
        assert job.snapshot is not None
        plan = make_plan(
            context.resolved(job),
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
                **self._outside.of_plan,
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
            job=self._record.job.id,
            instance=plan.instance,
            delete=commands.delete(plan),
            state=state,
        )
