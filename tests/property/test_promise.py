"""Whatever happens, every job ends once, rightly, and nothing is left.

A list of steps is drawn, and acted on in one run of trio, on the fake Incus and under a clock
that jumps: processes of pikaci are started, asked to end and killed, the daemon goes and comes,
calls fail, guests are lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.fake_incus import FINGERPRINT, FakeIncus, Instance
from orchestrator.job import publisher as publishing
from orchestrator.journal import open_journal
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.state_root import StateRoot
from tests.processes import mortal
from tests.property.world import Kind, World
from tests.quick import run_quickly


@dataclass(frozen=True)
class Run:
    kinds: tuple[Kind, ...]
    parallel: int

    async def __call__(self, world: World) -> None:
        world.run(list(self.kinds), self.parallel)


@dataclass(frozen=True)
class Resume:
    async def __call__(self, world: World) -> None:
        world.resume()


@dataclass(frozen=True)
class Cancel:
    job: int
    now: bool

    async def __call__(self, world: World) -> None:
        if world.jobs:
            world.cancel(list(world.jobs)[self.job % len(world.jobs)], now=self.now)


@dataclass(frozen=True)
class Interrupt:
    process: int

    async def __call__(self, world: World) -> None:
        if living := world.living():
            world.terminate(living[self.process % len(living)])


@dataclass(frozen=True)
class Kill:
    process: int

    async def __call__(self, world: World) -> None:
        if living := world.living():
            await world.kill(living[self.process % len(living)])


@dataclass(frozen=True)
class DaemonDown:
    async def __call__(self, world: World) -> None:
        world.daemon_down()


@dataclass(frozen=True)
class DaemonUp:
    async def __call__(self, world: World) -> None:
        world.daemon_up()


@dataclass(frozen=True)
class Fail:
    target: str
    error: str
    carried_out: bool
    times: int

    async def __call__(self, world: World) -> None:
        world.break_something()
        world.fake.fail(
            self.target, with_error=self.error, carried_out=self.carried_out, times=self.times
        )


@dataclass(frozen=True)
class Hang:
    target: str

    async def __call__(self, world: World) -> None:
        world.break_something()
        world.fake.hang(self.target)


@dataclass(frozen=True)
class Late:
    target: str
    secs: float

    async def __call__(self, world: World) -> None:
        world.break_something()
        world.fake.late(self.target, secs=self.secs)


@dataclass(frozen=True)
class BreakOff:
    target: str
    secs: float
    exit_code: int

    async def __call__(self, world: World) -> None:
        world.break_something()
        world.fake.break_off(self.target, secs=self.secs, exit_code=self.exit_code)


@dataclass(frozen=True)
class Garble:
    target: str
    prints: bytes

    async def __call__(self, world: World) -> None:
        world.break_something()
        world.fake.garble(self.target, prints=self.prints)


@dataclass(frozen=True)
class Flood:
    target: str

    async def __call__(self, world: World) -> None:
        world.break_something()
        world.fake.flood(self.target)


@dataclass(frozen=True)
class Spoil:
    how: str

    async def __call__(self, world: World) -> None:
        world.break_something()
        world.fake.spoil_result(self.how)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Meddle:
    instance: int
    delete: bool

    async def __call__(self, world: World) -> None:
        world.break_something()
        if ours := sorted(world.ours()):
            name = ours[self.instance % len(ours)]
            world.fake.delete_guest(name) if self.delete else world.fake.stop_guest(name)


@dataclass(frozen=True)
class Go:
    """All tasks go on, `turns` times."""

    turns: int

    async def __call__(self, world: World) -> None:
        for _ in range(self.turns):
            await trio.lowlevel.checkpoint()


@dataclass(frozen=True)
class Wait:
    secs: float

    async def __call__(self, world: World) -> None:
        await trio.sleep(self.secs)


Step = (
    Run | Resume | Cancel | Interrupt | Kill | DaemonDown | DaemonUp | Fail | Hang | Late | Spoil
    | BreakOff | Garble | Flood | Meddle | Go | Wait
)  # fmt: skip

SMALL = st.integers(0, 3)
CALLS = st.sampled_from(
    [
        "query",
        "create",
        "start",
        "delete",
        "exec",
        "pikaci-ready",
        "pikaci-incus-run",
        "pikaci-incus-run cancel",
        "pikaci-incus-run follow",
        "pikaci-collect",
    ]
)
ERRORS = st.sampled_from(
    [
        "websocket: close 1006 (abnormal closure): unexpected EOF",
        "The incus daemon doesn't appear to be started",
        'Instance is busy running a "create" operation',
        "no space left on device",
        "something else",
    ]
)
TIME = st.builds(Go, st.integers(1, 60)) | st.builds(
    Wait, st.sampled_from([0.1, 1, 5, 15, 40, 200])
)
OURS = st.one_of(
    st.builds(
        Run, st.lists(st.sampled_from(Kind), min_size=1, max_size=3).map(tuple), st.integers(1, 2)
    ),
    st.builds(Resume),
    st.builds(Cancel, SMALL, st.booleans()),
    st.builds(Interrupt, SMALL),
    st.builds(Kill, SMALL),
)
OUTAGES = st.builds(DaemonDown) | st.builds(DaemonUp)
FAULTS = st.one_of(
    st.builds(Fail, CALLS, ERRORS, st.booleans(), st.integers(1, 4)),
    st.builds(Hang, CALLS),
    st.builds(
        Late, st.sampled_from(["create", "start", "delete"]), st.sampled_from([0.5, 5.0, 25.0])
    ),
    st.builds(BreakOff, CALLS, st.sampled_from([0.5, 5.0, 130.0]), st.sampled_from([1, 255])),
    st.builds(
        Garble,
        st.sampled_from(["query", "create", "pikaci-ready", "pikaci-collect"]),
        st.sampled_from([b"", b"[[[", b'[{"name":1}]', b"\xff\x00", b"null"]),
    ),
    st.builds(Flood, st.sampled_from(["pikaci-ready", "pikaci-incus-run cancel", "delete"])),
    st.builds(Spoil, st.sampled_from(["missing", "empty", "torn", "foreign"])),
    st.builds(Meddle, SMALL, st.booleans()),
)


async def publish(workspace: Path, snapshots: Path, **options: object) -> Snapshot:
    """In place of the real one, which reads a workspace."""
    await trio.lowlevel.checkpoint()
    path = snapshots / "abc"
    path.mkdir(exist_ok=True)
    return Snapshot("abc", path, None, None)


async def live(steps: list[Step], base: Path) -> None:
    root = StateRoot(base / "state")
    root.make()
    with open_journal(root.journal) as look:
        async with FakeIncus.open() as fake, trio.open_nursery() as nursery:
            fake.instances()["pikaci-alien"] = Instance(
                name="pikaci-alien",
                project="pikaci",
                image=FINGERPRINT,
                status="Running",
                config={"user.pikaci.owner": "another"},
            )
            world = World(root, fake, nursery, look)
            for step in steps:
                await step(world)
                world.check()
            await world.come_to_rest()


def act(steps: list[Step]) -> None:
    """Take the steps, in a world of their own."""
    with mortal(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "publish", publish)
        run_quickly(partial(live, steps))


def plans(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    # Of a list's list, as a list that may be empty is drawn short.
    parts = st.lists(st.lists(steps, max_size=10), max_size=10)
    return parts.map(lambda drawn: [step for part in drawn for step in part])


checked = settings(max_examples=50)


@checked
@given(plans(TIME | OURS))
def test_processes_come_and_go(steps: list[Step]) -> None:
    """No death of ours is a fault of the infrastructure."""
    act(steps)


@checked
@given(plans(TIME | OURS | OUTAGES))
def test_the_daemon_comes_and_goes(steps: list[Step]) -> None:
    """An outage that is short is waited for."""
    act(steps)


@checked
@given(plans(TIME | OURS | OUTAGES | FAULTS))
def test_anything_goes_wrong(steps: list[Step]) -> None:
    """Whatever it is, it is told apart from a test that failed."""
    act(steps)
