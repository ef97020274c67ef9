"""Whatever happens, every job ends once, rightly, and nothing is left.

A list of steps is drawn, and acted on in one run of trio, on the fake Incus and under a clock
that jumps: processes of pikaci are started, asked to end and killed, the daemon goes and comes,
calls fail, guests are lost. One of the processes may be a service, whose clients come, die and
lose their connections; and the next processes may be of a version with other rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import orchestrator as orchestrator_module
from orchestrator.fake_incus import FINGERPRINT, FakeIncus, Instance
from orchestrator.incus import LOCAL, Host
from orchestrator.job import publisher as publishing
from orchestrator.journal import open_journal
from orchestrator.orchestrator import Orchestrator
from orchestrator.service import serving
from orchestrator.service.serving import default_socket
from orchestrator.snapshot.snapshot import Snapshot
from orchestrator.state_root import StateRoot
from tests.processes import mortal
from tests.property.customers import Wire
from tests.property.kinds import Kind
from tests.property.rules import Rulebook, Rules
from tests.property.world import World
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
class Serve:
    warm: int

    async def __call__(self, world: World) -> None:
        if world.service not in world.living():
            world.serve(warm=self.warm)


@dataclass(frozen=True)
class KillService:
    async def __call__(self, world: World) -> None:
        if world.service in world.living():
            assert world.service is not None
            await world.kill(world.service)


@dataclass(frozen=True)
class Submit:
    """By a new client of the service."""

    kinds: tuple[Kind, ...]

    async def __call__(self, world: World) -> None:
        world.submit(list(self.kinds))


@dataclass(frozen=True)
class SubmitAgain:
    """By another client, under a key that is known."""

    customer: int

    async def __call__(self, world: World) -> None:
        if world.customers:
            world.submit_again(world.customers[self.customer % len(world.customers)])


@dataclass(frozen=True)
class KillCustomer:
    customer: int

    async def __call__(self, world: World) -> None:
        if world.customers:
            world.customers[self.customer % len(world.customers)].kill()


@dataclass(frozen=True)
class CancelByService:
    job: int
    now: bool

    async def __call__(self, world: World) -> None:
        if world.jobs:
            world.cancel_by_service(list(world.jobs)[self.job % len(world.jobs)], now=self.now)


@dataclass(frozen=True)
class Cut:
    """The ways of all clients to the service."""

    async def __call__(self, world: World) -> None:
        world.wire.cut()


@dataclass(frozen=True)
class CutAfter:
    """The way of the client that asks, or is answered, the last of so many bytes."""

    way: str
    size: int

    async def __call__(self, world: World) -> None:
        world.wire.cut_after(self.way, self.size)


@dataclass(frozen=True)
class Upgrade:
    """All processes are killed, and others with these rules will follow."""

    rules: Rules

    async def __call__(self, world: World) -> None:
        await world.upgrade(self.rules)


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
    | BreakOff | Garble | Flood | Meddle | Go | Wait | Serve | KillService | Submit | SubmitAgain
    | KillCustomer | CancelByService | Cut | CutAfter | Upgrade
)  # fmt: skip

SMALL = st.integers(0, 3)
CALLS = st.sampled_from(
    [
        "query",
        "query PATCH",
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
KINDS = st.lists(st.sampled_from(Kind), min_size=1, max_size=3).map(tuple)
OURS = st.one_of(
    st.builds(Run, KINDS, st.integers(1, 2)),
    st.builds(Resume),
    st.builds(Cancel, SMALL, st.booleans()),
    st.builds(Interrupt, SMALL),
    st.builds(Kill, SMALL),
)
SERVICE = st.one_of(
    st.builds(Serve, st.integers(0, 2)),
    st.builds(Serve, st.integers(0, 2)),
    st.builds(KillService),
    st.builds(Submit, KINDS),
    st.builds(Submit, KINDS),
    st.builds(SubmitAgain, SMALL),
    st.builds(KillCustomer, SMALL),
    st.builds(CancelByService, SMALL, st.booleans()),
    st.builds(Cut),
    st.builds(
        CutAfter, st.sampled_from(["asked", "answered"]), st.integers(0, 30) | st.integers(0, 5000)
    ),
)
UPGRADES = st.builds(Upgrade, st.sampled_from(Rules))
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


async def live(steps: list[Step], rulebook: Rulebook, host: Host, base: Path) -> None:
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
            wire = Wire(base / "wire.sock", default_socket(root))
            await nursery.start(wire.run)
            world = World(root, fake, nursery, look, wire, rulebook, host)
            for step in steps:
                await step(world)
                world.check()
            await world.come_to_rest()
            nursery.cancel_scope.cancel()


async def sleep_for(orchestrator: Orchestrator) -> None:
    await trio.sleep_forever()


def act(steps: list[Step], host: str = LOCAL) -> None:
    """Take the steps, in a world of their own, whose jobs run on this host."""
    with mortal(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "publish", publish)
        # A collection of all objects takes longer than the steps.
        patch.setattr(serving, "collect_when_idle", sleep_for)
        sessions = count(1)
        patch.setattr(orchestrator_module, "new_run_id", lambda: f"session{next(sessions)}")
        run_quickly(partial(live, steps, Rulebook(patch), Host(name=host)))


def plans(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    # Of a list's list, as a list that may be empty is drawn short.
    parts = st.lists(st.lists(steps, max_size=10), max_size=10)
    return parts.map(lambda drawn: [step for part in drawn for step in part])


on_any_host = pytest.mark.parametrize("host", [LOCAL, "build"])
checked = settings(max_examples=50)
# A service and its clients take more of the processor.
checked_less = settings(max_examples=20)


@on_any_host
@checked
@given(plans(TIME | OURS))
def test_processes_come_and_go(host: str, steps: list[Step]) -> None:
    """No death of ours is a fault of the infrastructure."""
    act(steps, host)


@on_any_host
@checked
@given(plans(TIME | OURS | OUTAGES))
def test_the_daemon_comes_and_goes(host: str, steps: list[Step]) -> None:
    """An outage that is short is waited for."""
    act(steps, host)


@on_any_host
@checked
@given(plans(TIME | OURS | OUTAGES | FAULTS))
def test_anything_goes_wrong(host: str, steps: list[Step]) -> None:
    """Whatever it is, it is told apart from a test that failed."""
    act(steps, host)


@checked_less
@given(plans(TIME | OURS | SERVICE))
def test_a_service_and_its_clients_come_and_go(steps: list[Step]) -> None:
    """Nor is a death of theirs, or a way between them that breaks at any byte."""
    act(steps)


@checked_less
@given(plans(TIME | OURS | SERVICE | OUTAGES | FAULTS))
def test_anything_goes_wrong_beside_a_service(steps: list[Step]) -> None:
    """What its clients are told is what happened."""
    act(steps)


@checked_less
@given(plans(TIME | SERVICE | OUTAGES | FAULTS))
def test_warm_guests_come_and_go(steps: list[Step]) -> None:
    """None of them outlives its process for long, and a job in one is a job like any other."""
    act([Serve(2), Submit((Kind.PASSES, Kind.FAILS)), Wait(5), Submit((Kind.SLEEPS,)), *steps])


@checked_less
@given(plans(TIME | OURS | SERVICE | UPGRADES))
def test_versions_of_other_rules_follow_each_other(steps: list[Step]) -> None:
    """Jobs that were let in are read, go on, or end with one clear failure; no other is stopped."""
    act(steps)
