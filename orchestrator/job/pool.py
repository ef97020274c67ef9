"""Warm guests: booted before their jobs, and deleted after one job like any other guest.

A pool keeps guests for the kinds of jobs that ran lately on each host, in slots that no job needs.
A job that finds one of its kind claims it, and then mounts its directories into it; any other job
makes its guest itself. A guest leaves when it is old, when no job of its kind ran lately, when its
image was replaced, when a job needs its slot, and at the end of the process.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import boot
from orchestrator.attempt.lease import HeldLease
from orchestrator.attempt.plan import Plan, PlanContext, instance_name
from orchestrator.attempt.same_ids import Look
from orchestrator.attempt.warm import Kind, idle_plan, kind_of
from orchestrator.capacity import WarmGuests
from orchestrator.errors import collect_errors, one_error
from orchestrator.image.store import ImageMissing
from orchestrator.incus import LOCAL
from orchestrator.job.queue import Queue
from states import events as ev
from states.errors import PikaciError
from states.lease import LeaseState
from states.spec import JobSpec, size_in_bytes

if TYPE_CHECKING:
    from orchestrator.job.context import Context

# A job that needs a slot waits so long for the guest that has it to be deleted, and so does the end
# of a process. What is left then is deleted later, by upkeep or by the next start.
DELETE_SECS = 15.0
# What happens by time alone is noticed so often: kinds that no job has used, and images.
LOOK_EVERY_SECS = 30.0
# After a guest that could not be made.
PAUSE_SECS = 30.0
# A guest is made when the jobs before it have begun: it would take the processors from their start.
# A job that has not begun after this time waits for something else.
STARTS_SECS = 60.0
# A lease is longer than the guest may be idle.
MARGIN_SECS = 600.0


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to make a guest of a kind: by the plan of a job that used one, begun at `since`."""

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


@dataclass(eq=False)
class Guest:
    """A warm guest, or one that is being made. `boot_ms` is how long that took."""

    recipe: Recipe
    plan: Plan
    lease: HeldLease
    boot_ms: float = 0.0
    is_claimed: bool = False
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    gone: trio.Event = field(default_factory=trio.Event)

    @property
    def stays(self) -> bool:
        """Whether it is not to be deleted now, as far as is known."""
        return not self.scope.cancel_called

    @property
    def is_warm(self) -> bool:
        """Whether a job can claim it now."""
        return self.stays and self.lease.state is LeaseState.WARM


class Pool:
    """The warm guests of one process, which has this `session`.

    `queue` has the slots, which jobs use first. `on_fault` is called with what prevents a guest;
    after a while another is made. `abandoned` are guests that could not be deleted, by name.
    """

    def __init__(
        self,
        context: Context,
        queue: Queue,
        settings: WarmGuests,
        session: str,
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self.abandoned: set[str] = set()
        self._context = context
        self._queue = queue
        self._settings = settings
        self._session = session
        self._on_fault = on_fault
        self._recipes: dict[str, deque[Recipe]] = {}  # by host, those of the last jobs
        self._guests: list[Guest] = []
        self._starting: dict[str, tuple[str, float]] = {}  # by job: its host, and since when
        self._paused_until: dict[str, float] = {}
        self._changed = trio.Event()
        self._nursery: trio.Nursery
        queue.watch(self._look)
        context.journal.observe(self._note)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep guests while the block runs, and delete them at its end."""
        with one_error():
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._tend)
                try:
                    yield
                finally:
                    self._nursery.cancel_scope.cancel()

    @property
    def warm(self) -> int:
        """How many guests a job can claim now."""
        return sum(guest.is_warm for guest in self._guests)

    def take(self, spec: JobSpec, context: PlanContext) -> Guest | None:
        """A guest for the job of a plan, which must claim it at once; None if there is none.

        Jobs of its kind are expected from now on.
        """
        kind = kind_of(spec, context)
        if kind is None:
            return None
        recipes = self._recipes.setdefault(kind.host, deque(maxlen=self._settings.size))
        recipes.append(Recipe(kind, spec, context, trio.current_time()))
        self._starting[context.job] = kind.host, trio.current_time()
        self._look()
        for guest in self._guests:
            if guest.is_warm and guest.recipe.kind == kind:
                guest.is_claimed = True
                guest.scope.cancel()
                self._guests.remove(guest)
                return guest
        return None

    async def make_room(self, host: str) -> None:
        """Delete guests for which the host has no room beside the jobs that have its slots."""
        there = sorted(self._on(host), key=lambda guest: guest.stays)
        leaving: list[Guest] = []
        while there and not self._queue.has_room(host, [guest.recipe.size for guest in there]):
            guest = there.pop(0)
            guest.scope.cancel()
            leaving.append(guest)
        with trio.move_on_after(DELETE_SECS):
            for guest in leaving:
                await guest.gone.wait()

    def _on(self, host: str) -> list[Guest]:
        return [guest for guest in self._guests if guest.recipe.kind.host == host]

    def _look(self) -> None:
        self._changed.set()

    def _note(self, entry: ev.Entry) -> None:
        starts = isinstance(entry, ev.Note | ev.DevicesConfigured | ev.InstanceReady)
        if not starts and self._starting.pop(entry.job, None) is not None:
            self._look()

    def _is_busy(self, host: str) -> bool:
        """Whether jobs start on the host, or wait for a slot."""
        oldest = trio.current_time() - STARTS_SECS
        self._starting = {job: one for job, one in self._starting.items() if one[1] > oldest}
        starting = any(host == there for there, _ in self._starting.values())
        return starting or self._queue.is_wanted(host)

    async def _tend(self) -> None:
        look_at_images = trio.current_time()
        while True:
            self._changed = trio.Event()
            if trio.current_time() >= look_at_images:
                look_at_images = trio.current_time() + LOOK_EVERY_SECS
                for host in list(self._recipes):
                    await collect_errors(self._on_fault, partial(self._look_at_images, host))
            for host in self._recipes:
                self._balance(host)
            with trio.move_on_after(LOOK_EVERY_SECS):
                await self._changed.wait()

    def _balance(self, host: str) -> None:
        """Give up guests that nobody expects a job for, and make those that are missing."""
        oldest = trio.current_time() - self._settings.idle_secs
        wanted = [recipe for recipe in self._recipes[host] if recipe.since > oldest]
        missing = Counter(recipe.kind for recipe in wanted)
        for guest in self._on(host):
            if not guest.stays:
                continue
            if missing[guest.recipe.kind] > 0:
                missing[guest.recipe.kind] -= 1
            else:
                guest.scope.cancel()
        if trio.current_time() < self._paused_until.get(host, 0.0) or self._is_busy(host):
            return
        for recipe in reversed(wanted):
            sizes = [guest.recipe.size for guest in self._on(host)]
            if not self._queue.has_room(host, [*sizes, recipe.size]):
                return
            if missing[recipe.kind] > 0:
                missing[recipe.kind] -= 1
                self._begin(recipe)

    async def _look_at_images(self, host: str) -> None:
        """Expect guests of the images that the aliases name now."""
        images, recipes = self._context.at(host).images, self._recipes[host]
        for recipe in list(recipes):
            assert isinstance(recipe.spec.image, str)
            try:
                found = await images.find(recipe.spec.image, recipe.spec.instance_type)
            except ImageMissing:
                new = None
            else:
                new = recipe.of_image(found.fingerprint)
            if recipe not in recipes:
                continue  # other jobs came meanwhile
            if new is None:
                recipes.remove(recipe)
            else:
                recipes[recipes.index(recipe)] = new

    def _begin(self, recipe: Recipe) -> None:
        there = self._context.at(recipe.kind.host)
        d = recipe.spec.deadlines
        # As in `lease_secs`: calls count twice, and the daemon may be waited for.
        secs = 2 * (d.create_secs + d.start_secs + d.ready_secs) + 3 * d.daemon_secs
        deadline = datetime.now(UTC) + timedelta(
            seconds=secs + self._settings.idle_secs + MARGIN_SECS
        )
        journal = self._context.journal
        name = instance_name(journal.owner, secrets.token_hex(16), 0)
        plan = idle_plan(
            recipe.spec, recipe.context, instance=name, session=self._session, deadline=deadline
        )
        lease = HeldLease(
            journal,
            there.incus,
            job="",
            instance=name,
            host="" if there.host.name == LOCAL else there.host.name,
            delete=commands.delete(plan),
        )
        guest = Guest(recipe, plan, lease)
        self._guests.append(guest)
        self._nursery.start_soon(self._live, guest, deadline)

    async def _live(self, guest: Guest, deadline: datetime) -> None:
        """Make a guest, keep it until it is claimed or has to go, and delete it."""
        host = guest.recipe.kind.host

        def on_fault(fault: BaseException) -> None:
            self._paused_until[host] = trio.current_time() + PAUSE_SECS
            self._on_fault(fault)

        try:
            with guest.scope:
                await collect_errors(on_fault, partial(self._make, guest, deadline))
                if guest.lease.state is LeaseState.WARM:
                    self._look()
                    await trio.sleep(self._settings.idle_secs)
        finally:
            if not guest.is_claimed:
                guest.scope.cancel()  # nobody may claim it now
                with trio.CancelScope(shield=True):
                    await collect_errors(self._on_fault, partial(self._delete, guest))
                self._guests.remove(guest)
                guest.gone.set()
                self._look()

    async def _make(self, guest: Guest, deadline: datetime) -> None:
        there = self._context.at(guest.recipe.kind.host)
        began = trio.current_time()
        await guest.lease.open(deadline, session=self._session)
        await guest.lease.create(commands.create(guest.plan))
        await self._boot(guest, Look(guest.plan, there.incus, there.neighbours))
        guest.boot_ms = round((trio.current_time() - began) * 1000, 3)
        guest.lease.boot()

    async def _boot(self, guest: Guest, look: Look) -> None:
        """Return when the guest is ready, and no other guest has ids of its own id map."""
        there = self._context.at(guest.recipe.kind.host)
        if not guest.plan.has_own_ids:
            await boot(there.incus, guest.plan)
            return
        with one_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look.run)
                await boot(there.incus, guest.plan)
                warning = await look.result()
                nursery.cancel_scope.cancel()
        if warning:
            raise PikaciError(warning)

    async def _delete(self, guest: Guest) -> None:
        with trio.move_on_after(DELETE_SECS):
            await guest.lease.let_go(self._context.intent)
        # A guest without a lease was never asked for.
        if guest.lease.state is not LeaseState.GONE:
            self.abandoned.add(guest.lease.instance)
            raise PikaciError(f"the warm guest {guest.lease.instance} could not be deleted yet")
