"""The lease of one instance, in the process that is responsible for it.

`states.lease` defines its states, and `states.ending` decides what to do next. This module does it,
and records it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import trio

from orchestrator.attempt.intents import IntentSwitch
from orchestrator.incus import Effect, Incus
from orchestrator.incus.errors import IncusError, InstanceNotFound
from orchestrator.journal import Journal
from orchestrator.journal.stamp import now
from states import events as ev
from states.ending import Action, Intent, release_plan
from states.errors import PikaciError
from states.lease import UNANSWERED_CREATE_SECS, LeaseEvent, LeaseState, step


class HeldLease:
    """The lease of a job's instance on a host. `delete` is the effect that deletes it.

    `hand_over` are the effects after which Incus deletes it by itself, none to wait for the delete.
    A warm guest has no `job`, "", and then no trace has what becomes of it.

    `member` is the member of the host's cluster that is to have it, "" where Incus is no cluster.
    """

    def __init__(
        self,
        journal: Journal,
        incus: Incus,
        *,
        job: str,
        instance: str,
        delete: Effect,
        hand_over: Sequence[Effect] = (),
        host: str = "",
        member: str = "",
        state: LeaseState = LeaseState.INTENDED,
    ) -> None:
        self.instance = instance
        self._host = host
        self.state = state
        self._journal = journal
        self._incus = incus
        self._job = job
        self._delete = delete
        self.hand_over = hand_over
        self._member = member
        self._absent_since = 0.0
        self.failed: set[Action] = set()

    async def open(self, deadline: datetime, *, session: str = "") -> None:
        """Record the intent to create the instance, so that it can be deleted after a crash.

        `session` is that of a warm guest.
        """
        await self._journal.append(
            ev.LeaseOpened(
                job=self._job,
                instance=self.instance,
                deadline=deadline,
                host=self._host,
                member=self._member,
                session=session,
                **now(),
            )
        )

    def boot(self) -> None:
        """The guest is warm: it is ready, and a job may claim it."""
        self.state = step(self.state, LeaseEvent.BOOT)

    async def claim(self, attempt: int, deadline: datetime) -> None:
        """Record that the warm guest is that of the job's attempt from now on."""
        await self._journal.append(
            ev.LeaseClaimed(
                job=self._job,
                instance=self.instance,
                attempt=attempt,
                deadline=deadline,
                host=self._host,
                member=self._member,
                **now(),
            )
        )
        self.state = step(self.state, LeaseEvent.CLAIM)

    async def create(self, effect: Effect) -> None:
        """Create the instance. Whatever this raises, `state` says what is known about it."""
        self.state = step(self.state, LeaseEvent.ASK)
        try:
            await self._incus.perform(effect)
        except PikaciError as error:
            # Any other is the effect's stdin's: that call was not made.
            if not isinstance(error, IncusError) or error.answered:
                self.state = step(self.state, LeaseEvent.ANSWER)
            raise
        self.state = step(self.state, LeaseEvent.ANSWER)

    async def keep(self, deadline: datetime) -> None:
        """Keep the instance for debugging until `deadline`. `KeptFull` if too many are kept."""
        await self._journal.append(
            ev.LeaseKept(job=self._job, instance=self.instance, deadline=deadline, **now())
        )
        self.state = step(self.state, LeaseEvent.KEEP)

    async def do(self, action: Action, intent: IntentSwitch, *, secs: float = float("inf")) -> None:
        """Do what `states.ending` decided: hand over, delete, release, or outlast.

        Adds what failed to `failed`. A delete may take `secs`. Outlasting ends early when the
        intent rises.
        """
        match action:
            case Action.HAND_OVER:
                await self._hand_it_over()
            case Action.DELETE:
                with trio.move_on_after(secs) as scope:
                    await self._delete_once()
                if scope.cancelled_caught:
                    self.failed.add(Action.DELETE)
            case Action.RELEASE:
                await self._gone(LeaseEvent.NOT_FOUND)
            case Action.OUTLAST:
                left = self._absent_since + UNANSWERED_CREATE_SECS - trio.current_time()
                if not await intent.reaches(Intent.CANCEL_NOW, within_secs=left):
                    self.state = step(self.state, LeaseEvent.OUTLAST)
            case _:
                raise AssertionError(f"BUG: {action} is not an action of a lease")

    async def let_go(self, intent: IntentSwitch) -> None:
        """Delete the instance, which no job needs any more, as far as possible now."""
        while True:
            action = release_plan(self.state, intent.value, failed=self.failed)
            if action in (Action.DONE, Action.LEAVE):
                return
            await self.do(action, intent)

    async def _hand_it_over(self) -> None:
        try:
            for effect in self.hand_over:
                await self._incus.perform(effect)
        except IncusError:
            # Whatever it was: the delete, which comes next, tells it if it fails as well.
            self.failed.add(Action.HAND_OVER)
        else:
            self.state = step(self.state, LeaseEvent.HAND_OVER)
            # No entry follows that would make the notes of these calls durable.
            await self._journal.append()

    async def _delete_once(self) -> None:
        if self.state not in (LeaseState.ASKED, LeaseState.ABSENT):
            self.state = step(self.state, LeaseEvent.DELETE)
        try:
            await self._incus.perform(self._delete)
        except InstanceNotFound:
            await self._gone(LeaseEvent.NOT_FOUND)
        except IncusError as error:
            self.failed.add(Action.DELETE)
            message = f"{self.instance} is left to `pikaci reap`: {error.brief}"
            await self._journal.append(ev.Warned(job=self._job, message=message, **now()))
        else:
            await self._gone(LeaseEvent.DELETED)

    async def _gone(self, event: LeaseEvent) -> None:
        after = step(self.state, event)
        if after is LeaseState.GONE:
            await self._journal.append(
                ev.LeaseEnded(job=self._job, instance=self.instance, **now())
            )
        elif self.state is not LeaseState.ABSENT:
            self._absent_since = trio.current_time()
        self.state = after
