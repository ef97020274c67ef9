"""Which job begins next."""

from __future__ import annotations

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from orchestrator.queue import Capacity, Queue
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
        async with self.queue.place(one):
            self.begun.append(one.id)
            await self.done[one.id].wait()

    @property
    def running(self) -> set[str]:
        return {place.job for place in self.queue.held}


async def test_of_equals_the_first_comes_first(nursery: trio.Nursery) -> None:
    """In one run, in the order in which they were submitted."""
    crowd = Crowd(nursery, Queue(Capacity(jobs=1)))
    await crowd.come(job("a.1"), job("a.2"), job("a.3"))
    await crowd.leave("a.1")
    await crowd.leave("a.2")

    assert ["a.1", "a.2", "a.3"] == crowd.begun
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
    assert queue.waits_for("a.3").startswith("its turn; a.2 is next, and waits for ")
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
    assert [] == queue.waiting
    nursery.cancel_scope.cancel()


def test_a_job_that_could_never_begin_is_refused() -> None:
    """With what is allowed."""
    with pytest.raises(SpecError, match="more than jobs may have here") as caught:
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
                assert sum(place.cpus for place in held) <= 4
                assert sum(place.memory for place in held) <= 4 * GIB
                assert all(queue.waits_for(place.job) for place in queue.waiting)
                await crowd.leave(data.draw(st.sampled_from(sorted(crowd.running))))
        assert len(jobs) == len(crowd.begun)
        assert [] == queue.held == queue.waiting

    trio.run(main)


def test_capacity_is_data() -> None:
    """It is read from a service's settings."""
    assert Capacity(jobs=2) == msgspec.json.decode(b'{"jobs": 2}', type=Capacity)
