"""One list of all instances serves all guests that start at the same time."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from orchestrator.attempt.same_ids import Neighbours
from orchestrator.incus.errors import DaemonUnreachable

GUESTS = 50
TAKEN = {"security.idmap.isolated": "true", "security.idmap.size": "10"}


class SlowList:
    """An Incus that answers after a second, with what it had when it was asked."""

    project = "pikaci"

    def __init__(self) -> None:
        self.instances: list[str] = []
        self.lists = 0
        self.faults: list[Exception] = []

    async def query(self, path: str, kind: Any, **options: Any) -> Any:
        self.lists += 1
        fault = self.faults.pop() if self.faults else None
        found = [
            kind.__args__[0](name, "pikaci", {"volatile.idmap.base": "7"}, TAKEN)
            for name in self.instances
        ]
        await trio.sleep(1)
        if fault is not None:
            raise fault
        return found

    async def start(self, neighbours: Neighbours, name: str) -> str:
        """What is found for a guest that has just been made."""
        self.instances.append(name)
        return await neighbours.find_same_ids(self, name, {}, daemon_secs=0)  # type: ignore[arg-type]


async def test_guests_that_start_together_share_a_list(autojump_clock: Any) -> None:
    """At most, the first one has a list for itself; all that came meanwhile have the next."""
    incus, neighbours = SlowList(), Neighbours()
    found: dict[str, str] = {}

    async def start(name: str) -> None:
        found[name] = await incus.start(neighbours, name)

    async with trio.open_nursery() as nursery:
        for number in range(GUESTS):
            nursery.start_soon(start, f"guest-{number}")

    assert incus.lists <= 2
    # All have the same ids here, which only one can miss: the first, if it was listed alone.
    assert GUESTS - 1 <= sum(bool(other) for other in found.values())


async def test_no_guest_gets_a_list_that_is_older_than_itself(autojump_clock: Any) -> None:
    """It would not see a guest that was made right before it."""
    incus, neighbours = SlowList(), Neighbours()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(incus.start, neighbours, "first")
        await trio.sleep(0.5)
        assert "first of project pikaci" == await incus.start(neighbours, "second")
    assert "first of project pikaci" == await incus.start(neighbours, "third")

    assert 3 == incus.lists


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_a_list_that_fails_is_one_guest_s_fault(how: str, autojump_clock: Any) -> None:
    """The next one that waits makes its own."""
    incus, neighbours = SlowList(), Neighbours()

    async def first() -> None:
        if how == "fails":
            incus.faults.append(DaemonUnreachable("gone"))
            with pytest.raises(DaemonUnreachable):
                await incus.start(neighbours, "first")
        else:
            with trio.move_on_after(0.7):
                await incus.start(neighbours, "first")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await trio.sleep(0.5)
        assert "first of project pikaci" == await incus.start(neighbours, "second")
