"""Trees as volumes, when calls are lost, cut and interleaved: a name that is marked is whole."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator.hosts import Tree
from orchestrator.hosts.volumes import (
    CONTENT,
    MADE,
    UNTIL,
    WHOLE,
    VolumeDiffers,
    VolumeTrees,
    volume_of,
)
from orchestrator.incus import Completed, Incus
from orchestrator.incus.errors import DaemonUnreachable, OutcomeUnknown, PoolFull
from orchestrator.incus.retries import retrying

CUT = "websocket: close 1006 (abnormal closure): unexpected EOF"
AWAY = "connection refused"
# What may become of a call: its answer is lost, it never arrives, nobody is there, the daemon is
# killed while it works.
FAULTS = ("", "lost", "unsent", "away", "killed")
TREE = Tree("one", Path(__file__).parent / "tree-that-is-never-read")
LONG = 3600.0


class Pool:
    """What Incus does with volumes, in the order in which it does it.

    A volume is its configuration, and whether its directory on the disk is whole.
    """

    def __init__(self, faults: Sequence[str] = ()) -> None:
        self.configs: dict[str, dict[str, str]] = {}
        self.whole: set[str] = set()
        self.used: set[str] = set()
        self.calls: list[str] = []
        self.wrong: list[str] = []
        self._faults = list(faults)

    def incus(self) -> Incus:
        incus = Incus(Path("/tmp"), remote="far", spawn=self.spawn)
        incus._conf_is_there = True  # the clock would jump while a thread looks
        return incus

    async def spawn(self, argv: Sequence[str], **options: Any) -> Completed:
        fault = self._faults.pop(0) if self._faults else ""
        assert len(self.calls) < 1000, "this does not come to an end"
        await trio.sleep(0.01)
        if fault in ("unsent", "away"):
            return Completed(
                tuple(argv), 1, b"", f"Error: {CUT if fault == 'unsent' else AWAY}".encode()
            )
        answer, problem = await self._do(list(argv), killed=fault == "killed")
        self.wrong += [
            name for name in self.configs if self.marked(name) and name not in self.whole
        ]
        await trio.sleep(0.01)
        if fault in ("lost", "killed"):
            problem = CUT
        elif answer is not None:
            await options["sink"](json.dumps(answer).encode())
        return Completed(
            tuple(argv), 1 if problem else 0, b"", f"Error: {problem}".encode() if problem else b""
        )

    async def _do(self, argv: list[str], *, killed: bool) -> tuple[object, str]:
        if "import" in argv:
            self.calls.append("import")
            name = argv[-1]
            # The real archive's index has them; this one's is not made.
            ours = {"security.shifted": "true", CONTENT: TREE.name}
            self.configs[name] = {**ours, MADE: name, UNTIL: "2100-01-01"}
            await trio.sleep(0.05)
            if not killed:
                self.whole.add(name)
            return None, ""
        method = argv[argv.index("-X") + 1] if "-X" in argv else "GET"
        body = json.loads(argv[argv.index("-d") + 1]) if "-d" in argv else {}
        self.calls.append(method)
        name = re.sub(r".*/custom/?|\?.*", "", argv[-1])
        if not name:
            return [self._shown(one) for one in self.configs], ""
        if name not in self.configs:
            return None, "Storage pool volume not found"
        return await getattr(self, method.lower())(name, body, killed)

    async def get(self, name: str, body: Any, killed: bool) -> tuple[object, str]:
        return self._shown(name), ""

    async def patch(self, name: str, body: Any, killed: bool) -> tuple[object, str]:
        self.configs[name] |= {} if killed else body["config"]
        return None, ""

    async def post(self, name: str, body: Any, killed: bool) -> tuple[object, str]:
        new = body["name"]
        if new in self.configs:
            return None, "Volume by that name already exists"
        # First the database, then the disk.
        self.configs[new] = self.configs.pop(name)
        await trio.sleep(0.01)
        if killed or name not in self.whole:
            return None, CUT
        self.whole.remove(name)
        self.whole.add(new)
        return None, ""

    async def delete(self, name: str, body: Any, killed: bool) -> tuple[object, str]:
        if name in self.used:
            return None, "The storage volume is still in use"
        if not killed:
            del self.configs[name]
            self.whole.discard(name)
        return None, ""

    def marked(self, name: str) -> bool:
        """Whether a job would take the volume for a whole tree."""
        config = self.configs[name]
        return WHOLE in config and config[WHOLE] == config[MADE]

    def _shown(self, name: str) -> object:
        users = ["/1.0/instances/x"] if name in self.used else []
        return {"name": name, "config": self.configs[name], "used_by": users}


async def deliver(pool: Pool, *, secs: float = 600) -> None:
    """As a job does it, in a process of its own."""
    send = partial(VolumeTrees(pool.incus(), "pool").deliver, [TREE], lease_secs=LONG)
    await retrying(send, on=(DaemonUnreachable, OutcomeUnknown), secs=secs)


@given(
    faults=st.lists(st.sampled_from(FAULTS), max_size=30),
    publishers=st.integers(1, 4),
    cancels=st.lists(st.floats(0, 1), max_size=2),
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_lost_what_is_marked_is_whole(
    faults: list[str], publishers: int, cancels: list[float]
) -> None:
    """Some publishers are cancelled, and others go on; nothing but leftovers of faults stays."""

    async def main() -> Pool:
        pool = Pool(faults)

        async def cancelled(after_secs: float) -> None:
            with trio.move_on_after(after_secs):
                await deliver(pool)

        async with trio.open_nursery() as nursery:
            for secs in cancels:
                nursery.start_soon(cancelled, secs)
            for _ in range(publishers):
                nursery.start_soon(deliver, pool)
        await deliver(pool)
        return pool

    pool = trio.run(main, clock=MockClock(autojump_threshold=0))

    assert [] == pool.wrong
    assert pool.marked(volume_of(TREE))
    left = set(pool.configs) - {volume_of(TREE)}
    assert all(name.startswith("pikaci-new-") for name in left)
    assert all(UNTIL in pool.configs[name] for name in left)
    assert not left or any(faults)


async def test_a_tree_that_is_there_costs_one_question(autojump_clock: MockClock) -> None:
    pool = Pool()
    await deliver(pool)
    first, pool.calls = pool.calls, []
    await deliver(pool)

    assert ["GET", "import", "POST", "GET", "PATCH"] == first
    assert ["GET"] == pool.calls


async def test_a_lease_that_ends_too_early_is_put_off(autojump_clock: MockClock) -> None:
    pool = Pool()
    await deliver(pool)
    pool.configs[volume_of(TREE)][UNTIL] = "2020-01-01T00:00:00+00:00"
    pool.calls = []

    await deliver(pool)

    assert ["GET", "PATCH"] == pool.calls
    assert "2020" < pool.configs[volume_of(TREE)][UNTIL][:4]


async def test_an_unmarked_volume_is_waited_for_and_then_made_anew(
    autojump_clock: MockClock,
) -> None:
    """Its publisher may be about to mark it, or dead."""
    for lives in (True, False):
        pool = Pool()
        await deliver(pool)
        del pool.configs[volume_of(TREE)][WHOLE]
        pool.calls = []

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver, pool)
            await trio.sleep(1)
            if lives:
                config = pool.configs[volume_of(TREE)]
                config[WHOLE] = config[MADE]

        assert ("import" in pool.calls) == (not lives)


async def test_a_volume_that_vanishes_each_time_is_no_endless_loop(
    autojump_clock: MockClock,
) -> None:
    pool = Pool()

    async def sweep() -> None:
        while True:
            await trio.sleep(0.001)
            pool.configs.pop(volume_of(TREE), None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep)
        with pytest.raises(VolumeDiffers, match="is deleted as soon as it is created"):
            await deliver(pool)
        nursery.cancel_scope.cancel()


async def test_a_full_pool_is_no_reason_to_try_for_minutes(autojump_clock: MockClock) -> None:
    pool = Pool()

    async def full(argv: list[str], *, killed: bool) -> tuple[object, str]:
        if "import" in argv:
            return None, "Failed to write: no space left on device"
        return await Pool._do(pool, argv, killed=killed)

    pool._do = full  # type: ignore[method-assign]
    began = trio.current_time()

    with pytest.raises(PoolFull):
        await deliver(pool)

    assert trio.current_time() - began < 1
    assert {} == pool.configs


async def test_a_sweep_asks_before_it_deletes(autojump_clock: MockClock) -> None:
    """A job may get a volume between the list and the delete; Incus then refuses."""
    pool = Pool()
    await deliver(pool)
    config = pool.configs[volume_of(TREE)]
    trees = VolumeTrees(pool.incus(), "pool")

    assert [] == await trees.sweep(idle_secs=0)
    config[UNTIL] = "rubbish"
    assert [volume_of(TREE)] == await trees.sweep(idle_secs=60, dry_run=True)
    pool.used.add(volume_of(TREE))
    assert [] == await trees.sweep(idle_secs=60)
    pool.used.clear()
    assert [volume_of(TREE)] == await trees.sweep(idle_secs=60)
    assert {} == pool.configs


async def test_whoever_waits_for_a_tree_sees_what_is_done_for_it(autojump_clock: MockClock) -> None:
    """A job's trace has its calls; those of another job that sends the same tree are that one's."""
    trees = VolumeTrees(Pool().incus(), "pool")
    seen: dict[str, list[str]] = {"first": [], "second": []}

    async with trio.open_nursery() as nursery:
        for job in seen.values():
            observe = partial(lambda calls, call: calls.append(call.effect), job)
            send = partial(trees.observed(observe).deliver, [TREE], lease_secs=LONG)
            nursery.start_soon(send)

    assert [1, 5] == sorted(len(calls) for calls in seen.values())
    assert 1 == [*seen["first"], *seen["second"]].count("import volume")
