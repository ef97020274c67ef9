"""Warm guests: booted before their jobs, and deleted after one job like any other guest.

A pool keeps guests for the kinds of jobs that ran lately on each host, in slots that no job needs.
A job that finds one of its kind claims it, and then mounts its directories into it; any other job
makes its guest itself. A guest leaves when it is old, when no job of its kind ran lately, when its
image was replaced, when a job needs its slot, and at the end of the process.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from orchestrator.attempt.plan import PlanContext
from orchestrator.attempt.warm import kind_of
from orchestrator.capacity import WarmGuests
from orchestrator.errors import collect_errors, one_error
from orchestrator.image.store import ImageMissing
from orchestrator.job.queue import Queue
from orchestrator.job.warm_guest import DELETE_SECS, Recipe, WarmGuest
from states import events as ev
from states.errors import PikaciError
from states.spec import JobSpec

if TYPE_CHECKING:
    from orchestrator.job.context import Context

# What happens by time alone is noticed so often: kinds that no job has used, and images.
LOOK_EVERY_SECS = 30.0
# After a guest that could not be made.
PAUSE_SECS = 30.0
# A guest is made when the jobs before it have begun: it would take the processors from their start.
# A job that has not begun after this time waits for something else.
STARTS_SECS = 60.0


class Pool:
    """The warm guests of one process, which has this `session`.

    `queue` has the slots, which jobs use first. `on_fault` is called with what prevents a guest;
    after a while another is made. `abandoned` are the names of guests that only upkeep can delete.
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
        self._guests: list[WarmGuest] = []
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
                self._nursery.start_soon(self._follow_images)
                try:
                    yield
                finally:
                    self._nursery.cancel_scope.cancel()

    @property
    def warm(self) -> int:
        """How many guests a job can claim now."""
        return sum(guest.is_warm for guest in self._guests)

    @property
    def booting(self) -> int:
        """How many guests are being made."""
        return sum(guest.stays and not guest.is_warm for guest in self._guests)

    def take(self, spec: JobSpec, context: PlanContext) -> WarmGuest | None:
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
                guest.claim()
                self._guests.remove(guest)
                return guest
        return None

    def abandon(self, guest: WarmGuest) -> None:
        """Leave a guest that was taken, and has no job, to upkeep."""
        self.abandoned.add(guest.plan.instance)

    async def make_room(self, host: str) -> None:
        """Delete guests for which the host has no room beside the jobs that have its slots."""
        there = sorted(self._on(host), key=lambda guest: guest.stays)
        leaving: list[WarmGuest] = []
        while there and not self._queue.has_room(host, [guest.recipe.size for guest in there]):
            guest = there.pop(0)
            guest.leave()
            leaving.append(guest)
        with trio.move_on_after(DELETE_SECS):
            for guest in leaving:
                await guest.gone.wait()

    def _on(self, host: str) -> list[WarmGuest]:
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
        while True:
            self._changed = trio.Event()
            for host in self._recipes:
                self._balance(host)
            with trio.move_on_after(LOOK_EVERY_SECS):
                await self._changed.wait()

    def _wanted(self, host: str) -> deque[Recipe]:
        """The recipes of the host's last jobs, without those of jobs that began long ago."""
        recipes = self._recipes[host]
        while recipes and recipes[0].since <= trio.current_time() - self._settings.idle_secs:
            recipes.popleft()
        return recipes

    def _balance(self, host: str) -> None:
        """Give up guests that nobody expects a job for, and make those that are missing."""
        if self._is_busy(host):
            return
        now = trio.current_time()
        wanted = self._wanted(host)
        missing = Counter(recipe.kind for recipe in wanted)
        for guest in self._on(host):
            if not guest.stays:
                continue
            if missing[guest.recipe.kind] > 0:
                missing[guest.recipe.kind] -= 1
            else:
                guest.leave()
        for recipe in reversed(wanted):
            sizes = [guest.recipe.size for guest in self._on(host)]
            room = self._queue.has_room(host, [*sizes, recipe.size])
            if not room or now < self._paused_until.get(host, 0.0):
                return
            if missing[recipe.kind] > 0:
                missing[recipe.kind] -= 1
                self._begin(recipe)

    def _begin(self, recipe: Recipe) -> None:
        idle_secs = self._settings.idle_secs
        guest = WarmGuest(self._context, recipe, self._session, idle_secs=idle_secs)
        self._guests.append(guest)
        self._nursery.start_soon(self._live, guest)

    async def _follow_images(self) -> None:
        # Beside `_tend`: a host that does not answer must not keep the guests of others waiting.
        while True:
            await trio.sleep(LOOK_EVERY_SECS)
            async with trio.open_nursery() as nursery:
                for host in self._recipes:
                    look = partial(self._look_at_images, host)
                    nursery.start_soon(collect_errors, self._on_fault, look)

    async def _look_at_images(self, host: str) -> None:
        """Expect guests of the images that the aliases name now."""
        images, recipes = self._context.at(host).images, self._wanted(host)
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
            self._look()

    async def _live(self, guest: WarmGuest) -> None:
        host = guest.recipe.kind.host

        def on_fault(fault: BaseException) -> None:
            self._paused_until[host] = trio.current_time() + PAUSE_SECS
            self._on_fault(fault)

        await guest.live(self._look, on_fault)
        if guest in self._guests:  # no job has it
            self._guests.remove(guest)
            self._look()
        if guest.is_left:
            self.abandon(guest)
            name = guest.plan.instance
            on_fault(PikaciError(f"the warm guest {name} could not be deleted yet"))
