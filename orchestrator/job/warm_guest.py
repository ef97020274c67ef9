"""One warm guest: made, kept until a job claims it, or deleted."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import boot
from orchestrator.attempt.lease import HeldLease
from orchestrator.attempt.plan import PlanContext, instance_name
from orchestrator.attempt.same_ids import Look
from orchestrator.attempt.warm import Kind, idle_plan
from orchestrator.errors import collect_errors, one_error
from orchestrator.incus import LOCAL
from states.errors import PikaciError
from states.lease import LeaseState
from states.spec import JobSpec, size_in_bytes

if TYPE_CHECKING:
    from orchestrator.job.context import Context

# A job that needs a slot waits this long for the guest that has it to be deleted. So does the end
# of a process, after the `answer_secs` of a create that is under way. What is left then is deleted
# later, by upkeep or by the next start.
DELETE_SECS = 15.0
# A lease is longer than the guest may be idle.
MARGIN_SECS = 600.0


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to make a guest of a kind: by the plan of a job of this kind, which began at `since`."""

    kind: Kind
    spec: JobSpec
    context: PlanContext
    since: float

    @property
    def size(self) -> tuple[int, int]:
        """Its cpus, and its memory in bytes."""
        return self.spec.cpus, size_in_bytes(self.spec.memory)

    def of_image(self, fingerprint: str) -> Recipe:
        """The same with this image."""
        context = msgspec.structs.replace(self.context, fingerprint=fingerprint)
        kind = msgspec.structs.replace(self.kind, fingerprint=fingerprint)
        return replace(self, kind=kind, context=context)


class WarmGuest:
    """A guest of the recipe's kind, of the process with this session, for `idle_secs` at most.

    `boot_ms` is how long it took to make it. `gone` is set when it was deleted, as far as possible.
    """

    def __init__(self, context: Context, recipe: Recipe, session: str, *, idle_secs: float) -> None:
        self.recipe = recipe
        self.boot_ms = 0.0
        self.gone = trio.Event()
        self._there = context.at(recipe.kind.host)
        self._intent = context.intent
        self._session = session
        self._idle_secs = idle_secs
        self._scope = trio.CancelScope()
        self._is_claimed = False
        d = recipe.spec.deadlines
        # As in `lease_secs`: calls count twice, and the daemon may be waited for.
        calls = 2 * (d.create_secs + d.start_secs + d.ready_secs) + 3 * d.daemon_secs
        secs = timedelta(seconds=calls + idle_secs + MARGIN_SECS)
        now = datetime.now(UTC)
        self._lease_ends = now + secs
        journal = context.journal
        self.plan = idle_plan(
            recipe.spec,
            recipe.context,
            instance=instance_name(journal.owner, secrets.token_hex(16), 0),
            session=session,
            deadline=self._lease_ends,
            begun=now,
        )
        self._lease = HeldLease(
            journal,
            self._there.incus,
            job="",
            instance=self.plan.instance,
            host="" if self._there.host.name == LOCAL else self._there.host.name,
            delete=commands.delete(self.plan),
        )

    @property
    def stays(self) -> bool:
        """Whether it is not to be deleted now, as far as is known."""
        return not self._scope.cancel_called

    @property
    def is_warm(self) -> bool:
        """Whether a job can claim it now."""
        return self.stays and self._lease.state is LeaseState.WARM

    @property
    def is_left(self) -> bool:
        """Whether it was not deleted, although it is `gone` for this process."""
        return self.gone.is_set() and self._lease.state is not LeaseState.GONE

    def claim(self) -> None:
        """From now on it is a job's, which makes a lease of its own of this one's."""
        self._is_claimed = True
        self._scope.cancel()

    def leave(self) -> None:
        """Have it deleted."""
        self._scope.cancel()

    async def live(
        self, on_warm: Callable[[], None], on_fault: Callable[[BaseException], None]
    ) -> None:
        """Make it, and wait for a job; delete it unless one has claimed it.

        A cancellation deletes it, too.
        """
        try:
            with self._scope:
                await collect_errors(on_fault, self._make)
                if self.is_warm:
                    on_warm()
                    await trio.sleep(self._idle_secs)
        finally:
            if not self._is_claimed:
                self._scope.cancel()  # nobody may claim it now
                with trio.move_on_after(DELETE_SECS, shield=True):
                    await collect_errors(on_fault, partial(self._lease.let_go, self._intent))
                self.gone.set()

    async def _make(self) -> None:
        began = trio.current_time()
        await self._lease.open(self._lease_ends, session=self._session)
        await self._lease.create(commands.create(self.plan))
        await self._boot()
        self.boot_ms = round((trio.current_time() - began) * 1000, 3)
        self._lease.boot()

    async def _boot(self) -> None:
        """Return when the guest is ready, and no other guest has ids of its own id map."""
        incus = self._there.incus
        if not self.plan.has_own_ids:
            await boot(incus, self.plan)
            return
        look = Look(self.plan, incus, self._there.neighbours)
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look.run)
                await boot(incus, self.plan)
                warning = await look.result()
                nursery.cancel_scope.cancel()
        if warning:
            raise PikaciError(warning)
