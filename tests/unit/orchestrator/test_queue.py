"""Which job begins next."""

from __future__ import annotations

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from orchestrator.capacity import Capacity
from orchestrator.job.queue import Queue
from orchestrator.job.ranking import Ranking
from states import events as ev
from states.errors import SpecError
from states.job import Job, fold
from states.spec import JobSpec, size_in_bytes
from tests.samples import sample_event, sample_shell_job

GIB = 2**30


def job(id: str, **spec: object) -> Job:
    """A submitted job; its run is the first part of its id."""
    event = sample_event(
        ev.Submitted, 1, job=id, run=id.split(".")[0], spec=sample_shell_job(**spec)
    )
    return fold([event])


class Crowd:
    """Jobs that take their places, and leave them when they are told."""

    def __init__(self, nursery: trio.Nursery, queue: Queue) -> None:
        self.nursery = nursery
        self.queue = queue
        self.begun: list[str] = []
        self.done: dict[str, trio.Event] = {}

    async def come(self, *jobs: Job) -> None:
        for one in jobs:
            self.done[one.id] = trio.Event()
            self.nursery.start_soon(self._live, one)
            await wait_all_tasks_blocked()

    async def leave(self, id: str) -> None:
        self.done[id].set()
        await wait_all_tasks_blocked()

    async def _live(self, one: Job) -> None:
        async with self.queue.slot(one):
            self.begun.append(one.id)
            await self.done[one.id].wait()

    @property
    def running(self) -> set[str]:
        return {slot.job for slot in self.queue.held}


async def test_of_equals_the_first_comes_first(nursery: trio.Nursery) -> None:
    """In one run, in the order in which they were submitted."""
    crowd = Crowd(nursery, Queue(Capacity(jobs=1)))
    await crowd.come(job("a.1"), job("a.2"), job("a.3"))
    await crowd.leave("a.1")
    await crowd.leave("a.2")

    assert ["a.1", "a.2", "a.3"] == crowd.begun
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"jobs": 3}, 2),
        ({"jobs": 9, "cpus": 7}, 1),
        ({"jobs": 9, "memory": 17 * GIB}, 3),
        ({"jobs": 1}, 0),
        ({"jobs": 9}, 8),
    ],
    ids=str,
)
async def test_what_jobs_leave_is_told(
    nursery: trio.Nursery, limits: dict[str, int], fits: int
) -> None:
    """Slots, cpus and memory beside the jobs that have some; nothing is kept for who asks."""
    queue = Queue(Capacity(**limits))
    crowd = Crowd(nursery, queue)
    await crowd.come(job("a.1", cpus=3, memory="4GiB"))

    for count in range(10):
        assert (count <= fits) == queue.has_room("local", [(3, 4 * GIB)] * count)
    assert queue.has_room("far", [(3, 4 * GIB)])
    nursery.cancel_scope.cancel()


async def test_who_watches_hears_of_every_job_that_leaves(nursery: trio.Nursery) -> None:
    """Its slot, or the queue: then there may be room."""
    queue = Queue(Capacity(jobs=1))
    heard: list[bool] = []
    queue.watch(lambda: heard.append(queue.is_wanted("local")))
    crowd = Crowd(nursery, queue)
    await crowd.come(job("a.1"), job("a.2"))
    assert queue.is_wanted("local")
    assert not queue.is_wanted("far")
    await crowd.leave("a.1")
    await crowd.leave("a.2")

    assert [False, False] == heard
    nursery.cancel_scope.cancel()


async def test_a_higher_priority_goes_first(nursery: trio.Nursery) -> None:
    """Whenever it came; what runs is not disturbed."""
    crowd = Crowd(nursery, Queue(Capacity(jobs=1)))
    await crowd.come(job("a.1"), job("a.2"), job("b.1", priority=5), job("c.1", priority=-5))
    for id in ("a.1", "b.1", "a.2"):
        await crowd.leave(id)

    assert ["a.1", "b.1", "a.2", "c.1"] == crowd.begun
    nursery.cancel_scope.cancel()


async def test_a_small_run_does_not_wait_for_all_of_a_big_one(nursery: trio.Nursery) -> None:
    """Places go to the run that has the fewest."""
    crowd = Crowd(nursery, Queue(Capacity(jobs=2)))
    await crowd.come(*(job(f"big.{n}") for n in range(1, 5)), job("small.1"))
    await crowd.leave("big.1")

    assert ["big.1", "big.2", "small.1"] == crowd.begun
    nursery.cancel_scope.cancel()


async def test_a_big_job_is_not_starved_by_small_ones(nursery: trio.Nursery) -> None:
    """Who is first and does not fit is waited for, and says for what it waits."""
    queue = Queue(Capacity(jobs=9, cpus=4, memory=8 * GIB))
    crowd = Crowd(nursery, queue)
    await crowd.come(
        job("a.1", cpus=1, memory="6GiB"),
        job("a.2", cpus=1, memory="4GiB"),
        job("a.3", cpus=1, memory="1GiB"),
    )

    assert {"a.1"} == crowd.running
    assert "4 GiB of memory: 6 GiB of 8 GiB are taken" == queue.waits_for("a.2")
    assert queue.waits_for("a.3").startswith("jobs ahead of it; a.2 is next, and waits for ")
    await crowd.leave("a.1")
    assert {"a.2", "a.3"} == crowd.running
    nursery.cancel_scope.cancel()


async def test_who_gives_up_waiting_is_in_nobody_s_way(nursery: trio.Nursery) -> None:
    """Those behind it go on at once."""
    queue = Queue(Capacity(jobs=9, cpus=4))
    crowd = Crowd(nursery, queue)
    await crowd.come(job("a.1", cpus=2))
    async with trio.open_nursery() as impatient:
        impatient.start_soon(Crowd(impatient, queue).come, job("a.2", cpus=4))
        await wait_all_tasks_blocked()
        await crowd.come(job("a.3", cpus=1))
        assert {"a.1"} == crowd.running
        impatient.cancel_scope.cancel()
    await wait_all_tasks_blocked()

    assert {"a.1", "a.3"} == crowd.running
    assert 0 == queue.queued
    nursery.cancel_scope.cancel()


def test_a_job_that_could_never_begin_is_refused() -> None:
    """With what is allowed."""
    with pytest.raises(SpecError, match="more than all jobs together may use") as caught:
        Capacity(jobs=1, memory=GIB).check(JobSpec(command="true", memory="2GiB"))

    assert "memory" == caught.value.key
    assert "at most 1 GiB" == caught.value.resolution


def test_sizes_are_incus_s() -> None:
    """Of thousands, or of 1024s."""
    sizes = ["1kB", "500MB", "1KiB", "4GiB", "2TiB"]
    assert [1000, 500_000_000, 1024, 4 * GIB, 2 * 2**40] == [size_in_bytes(size) for size in sizes]


_JOBS = st.tuples(
    st.sampled_from("abc"),
    st.integers(-1, 1),
    st.integers(1, 4),
    st.sampled_from(["1GiB", "2GiB", "4GiB"]),
)


@settings(max_examples=100)
@given(st.lists(_JOBS, min_size=1, max_size=12), st.data())
def test_limits_hold_and_everybody_has_a_turn(
    drawn: list[tuple[str, int, int, str]], data: st.DataObject
) -> None:
    """Whatever comes, and in whatever order jobs end."""
    capacity = Capacity(jobs=3, cpus=4, memory=4 * GIB)

    async def main() -> None:
        queue = Queue(capacity)
        async with trio.open_nursery() as nursery:
            crowd = Crowd(nursery, queue)
            jobs = [
                job(f"{run}.{n}", priority=priority, cpus=cpus, memory=memory)
                for n, (run, priority, cpus, memory) in enumerate(drawn)
            ]
            await crowd.come(*jobs)
            for _ in jobs:
                held = queue.held
                assert 1 <= len(held) <= 3
                assert sum(slot.cpus for slot in held) <= 4
                assert sum(slot.memory for slot in held) <= 4 * GIB
                assert all(queue.waits_for(slot.job) for slot in queue.waiting())
                await crowd.leave(data.draw(st.sampled_from(sorted(crowd.running))))
        assert len(jobs) == len(crowd.begun)
        assert [] == queue.held == list(queue.waiting())
        assert 0 == queue.queued
        assert queue.oldest is None

    trio.run(main)


class Model:
    """The queue's rule, said as simply as can be, at whatever cost."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.held: dict[str, Job] = {}
        self.waiting: dict[int, dict[str, dict[str, Job]]] = {}

    def come(self, one: Job) -> None:
        assert one.spec is not None
        self.waiting.setdefault(one.spec.priority, {}).setdefault(one.run, {})[one.id] = one
        self.admit()

    def leave(self, id: str) -> None:
        if id in self.held:
            del self.held[id]
        else:
            self.drop(id)
        self.admit()

    def drop(self, id: str) -> None:
        for runs in self.waiting.values():
            for jobs in runs.values():
                jobs.pop(id, None)
        # What comes back after it was gone comes last.
        self.waiting = {
            priority: left
            for priority, runs in self.waiting.items()
            if (left := {run: jobs for run, jobs in runs.items() if jobs})
        }

    def admit(self) -> None:
        while (first := self.first()) is not None and self.fits(first):
            self.drop(first.id)
            self.held[first.id] = first

    def first(self) -> Job | None:
        if not self.waiting:
            return None
        runs = self.waiting[max(self.waiting)]
        running = [job.run for job in self.held.values()]
        return next(iter(runs[min(runs, key=running.count)].values()))

    def fits(self, one: Job) -> bool:
        jobs = [job.spec for job in (*self.held.values(), one) if job.spec is not None]
        limits = self.capacity
        return len(jobs) <= limits.jobs and (
            len(jobs) == 1
            or (
                sum(spec.cpus for spec in jobs) <= (limits.cpus or 0)
                and sum(size_in_bytes(spec.memory) for spec in jobs) <= (limits.memory or 0)
            )
        )


@settings(max_examples=200, deadline=None)
@given(st.lists(_JOBS, min_size=1, max_size=30), st.data())
def test_the_order_is_that_of_the_rule(
    drawn: list[tuple[str, int, int, str]], data: st.DataObject
) -> None:
    """After every job that comes, ends or gives up, the same jobs run, and the same one is next."""
    capacity = Capacity(jobs=3, cpus=4, memory=4 * GIB)

    async def main() -> None:
        queue, model = Queue(capacity), Model(capacity)
        coming = [
            job(f"{run}.{n}", priority=priority, cpus=cpus, memory=memory)
            for n, (run, priority, cpus, memory) in enumerate(drawn)
        ]
        async with trio.open_nursery() as nursery:
            scopes: dict[str, trio.CancelScope] = {}

            async def live(one: Job) -> None:
                with scopes[one.id]:
                    async with queue.slot(one):
                        await trio.sleep_forever()

            while coming or scopes:
                if coming and (not scopes or data.draw(st.booleans())):
                    one = coming.pop(0)
                    scopes[one.id] = trio.CancelScope()
                    nursery.start_soon(live, one)
                    model.come(one)
                else:
                    id = data.draw(st.sampled_from(sorted(scopes)))
                    scopes.pop(id).cancel()
                    model.leave(id)
                await wait_all_tasks_blocked()

                assert sorted(model.held) == sorted(slot.job for slot in queue.held)
                first = model.first()
                waiting = {slot.job for slot in queue.waiting()}
                assert waiting == {id for id in scopes if id not in model.held}
                assert len(waiting) == queue.queued
                for id in waiting:
                    assert first is not None
                    turn = queue.waits_for(id).startswith(f"jobs ahead of it; {first.id} is next")
                    assert turn == (id != first.id)

    trio.run(main)


class CountedRank(int):
    """A rank that counts how often it is looked at."""

    looks = 0

    def __lt__(self, other: int) -> bool:
        CountedRank.looks += 1
        return super().__lt__(other)

    def __eq__(self, other: object) -> bool:
        CountedRank.looks += 1
        return super().__eq__(other)

    __hash__ = int.__hash__


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | st.integers(0, 9)), max_size=400)
)
def test_a_ranking_knows_its_first(changes: list[tuple[str, int | None]]) -> None:
    """Whatever came, went, came back and changed its rank."""
    ranking: Ranking[int] = Ranking()
    ranks: dict[str, int] = {}
    for name, rank in changes:
        if rank is not None:
            ranking.put(name, rank)
            ranks[name] = rank
        elif name in ranks:
            ranking.remove(name)
            del ranks[name]
        assert min(ranks, key=lambda name: (ranks[name], name), default=None) == ranking.first()
        assert len(ranks) == len(ranking)


def test_a_ranking_of_many_is_not_searched() -> None:
    """The first of 100,000 is found, changed and taken out with some dozens of looks, not more."""
    ranking: Ranking[CountedRank] = Ranking()
    for number in range(100_000):
        ranking.put(f"{number:06}", CountedRank(number))
    CountedRank.looks = 0
    for _ in range(1000):
        first = ranking.first()
        assert first is not None
        ranking.put(first, CountedRank(200_000))
        second = ranking.first()
        assert second is not None
        ranking.remove(second)

    assert CountedRank.looks < 1000 * 200


def test_capacity_is_data() -> None:
    """It is read from a service's settings."""
    assert Capacity(jobs=2) == msgspec.json.decode(b'{"jobs": 2}', type=Capacity)
