"""Maps of ids that guests have for themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator.attempt.id_map import (
    MAP_SIZE,
    MIN_MAPS,
    IdRange,
    id_map_config,
    id_range,
    local_id_range,
)
from orchestrator.attempt.plan import instance_name, make_plan
from orchestrator.attempt.same_ids import LISTED_SECS, Neighbours
from orchestrator.fake_incus import FINGERPRINT, FakeIncus
from orchestrator.fake_incus.model import Instance
from orchestrator.incus import Completed, Host, Incus
from states import events as ev
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import InstanceType, JobSpec
from tests.samples import sample_remote_context, sample_shell_job
from tests.unit.orchestrator.rig import Rig, open_rig

IDS = IdRange(1_000_000, 1_000_000_000)
FEW = IdRange(1_000_000, 100 * MAP_SIZE)
PASSES = JobSpec(command="echo one")


@given(st.text(), st.integers(2, 5000), st.integers(0, 1 << 31))
def test_a_map_lies_in_the_range_and_apart_from_guests_that_have_none(
    name: str, maps: int, base: int
) -> None:
    """Users of those have the first ids of the range."""
    config = id_map_config(IdRange(base, maps * MAP_SIZE + 7), name)

    first = int(config["security.idmap.base"])
    assert base + MAP_SIZE <= first <= base + (maps - 1) * MAP_SIZE
    assert 0 == (first - base) % MAP_SIZE == int(config["security.idmap.size"]) - MAP_SIZE


def test_a_job_s_guest_has_a_map_of_its_own_unless_root_needs_every_id() -> None:
    """A VM's ids are its own kernel's."""
    ids = sample_remote_context(ids=IDS)
    plan = make_plan(sample_shell_job(), ids)
    root = make_plan(sample_shell_job(run_as_root=True), ids)
    vm = make_plan(sample_shell_job(instance_type=InstanceType.VIRTUAL_MACHINE), ids)
    unknown = make_plan(sample_shell_job(), sample_remote_context())

    assert id_map_config(IDS, plan.instance).items() <= plan.config.items()
    assert [True, False, False, False] == [p.has_own_ids for p in (plan, root, vm, unknown)]


@pytest.mark.parametrize(
    ("subuid", "subgid", "found"),
    [
        ("x:1:9\nroot:1000000:1000000000\n", "root:1000000:1000000000", IDS),
        ("0:1000000:1000000000", "root:1000000:1000000000", IDS),
        ("root:1000000:1000000000", "root:2000000:1000000000", None),
        ("root:1000000:1000000000\nroot:9:9", "root:1000000:1000000000\nroot:9:9", None),
        (f"root:1:{MIN_MAPS * MAP_SIZE - 1}", f"root:1:{MIN_MAPS * MAP_SIZE - 1}", None),
        ("x:1:9", "", None),
    ],
)
def test_a_range_is_what_root_has_of_uids_and_gids(
    subuid: str, subgid: str, found: IdRange | None
) -> None:
    """Where it is unclear, or small, there are no such maps."""
    assert found == id_range(subuid, subgid)


def test_another_host_s_range_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it when the socket is one that somebody forwards."""
    monkeypatch.setenv("INCUS_SOCKET", "/tmp/forwarded.sock")

    assert local_id_range("local") is local_id_range("far") is None


def add_stranger(fake: FakeIncus, base: int, size: int) -> None:
    """Somebody else's instance, with these ids."""
    config = {
        "security.idmap.isolated": "true",
        "security.idmap.size": str(size),
        "volatile.idmap.base": str(base),
    }
    stranger = Instance("stranger", "default", FINGERPRINT, config=config)
    fake.store.project("default").instances["stranger"] = stranger


def bases(rig: Rig) -> list[str]:
    """The maps of the job's attempts."""
    opened = [lease for lease in rig.entries() if isinstance(lease, ev.LeaseOpened)]
    return [id_map_config(FEW, lease.instance)["security.idmap.base"] for lease in opened]


async def test_a_guest_whose_ids_another_has_is_not_used(tmp_path: Path) -> None:
    """It costs no retry: the job runs in the next one, whose map is its own."""
    async with open_rig(tmp_path, ids=FEW) as rig:
        first = instance_name(rig.journal.owner, "r.1", 1)
        taken = id_map_config(FEW, first)["security.idmap.base"]
        add_stranger(rig.fake, int(taken), 65536)
        job = await rig.live(sample_shell_job(command="echo one", retries=0))
        tried = bases(rig)
        restarted = next(entry for entry in rig.entries() if isinstance(entry, ev.Restarted))

    assert "stranger of project default uses ids" in restarted.reason
    assert (Verdict.PASSED, 0) == (job.verdict, job.retries)
    assert tried[0] == taken != tried[-1]
    assert {"stranger"} == set(rig.fake.instances("default")) | set(rig.fake.instances())


async def test_when_nearly_all_ids_are_taken_the_job_says_who_has_them(tmp_path: Path) -> None:
    """After some tries, with nothing left."""
    async with open_rig(tmp_path, ids=FEW) as rig:
        add_stranger(rig.fake, FEW.base, FEW.size)
        job = await rig.live(PASSES)

    assert (State.FAILED, Verdict.INFRASTRUCTURE) == (job.state, job.verdict)
    assert job.failure is not None
    assert "stranger of project default uses ids of the last one" in job.failure.message
    assert {} == rig.fake.instances()


LISTING = "/1.0/instances?"
UNKNOWN = "another guest may have ids of this one's id map: "


def listing_fails(rig: Rig, how: Callable[[], Awaitable[Completed]]) -> None:
    """Of what Incus is asked, only the list of all instances is not answered."""
    spawn = rig.context.incus._spawn

    async def answer(argv: Sequence[str], **options: Any) -> Completed:
        if any(LISTING in word for word in argv):
            return await how()
        return await spawn(argv, **options)

    rig.context.incus._spawn = answer


async def refuse() -> Completed:
    return Completed(("incus",), 1, b"", b"Error: not authorized\n")


async def hang() -> Completed:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("how", "why"),
    [(refuse, "not authorized"), (hang, "Incus did not list its instances within 5 s")],
)
async def test_a_job_runs_also_when_incus_does_not_list_its_instances(
    tmp_path: Path,
    autojump_clock: MockClock,
    how: Callable[[], Awaitable[Completed]],
    why: str,
) -> None:
    """People read that its ids were not checked: then, and at its end. The wait for it is short."""
    async with open_rig(tmp_path, ids=FEW) as rig:
        listing_fails(rig, how)
        began = trio.current_time()
        job = await rig.live(PASSES)
        took = trio.current_time() - began
        (noted,) = rig.notes(ev.Warned)

    assert (Verdict.PASSED, 1) == (job.verdict, job.attempt)
    assert [noted.message] == list(job.warnings)
    assert noted.message.startswith(UNKNOWN)
    assert why in noted.message
    assert took < LISTED_SECS + 5
    assert {} == rig.fake.instances()


async def test_a_guest_that_does_not_start_waits_for_no_list(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The fault is the start's."""
    async with open_rig(tmp_path, ids=FEW) as rig:
        listing_fails(rig, hang)
        rig.fake.fail("start", with_error="disk failed")
        job = await rig.live(msgspec.structs.replace(PASSES, retries=0))

    assert job.failure is not None
    assert "disk failed" in job.failure.message
    assert () == job.warnings


def test_on_another_host_incus_chooses_the_map() -> None:
    """A restricted project, as over TLS, takes no size. Nothing of it goes for root and VMs."""
    tls, ssh = Host(name="build", remote="far"), Host(name="build")
    vm = sample_shell_job(instance_type=InstanceType.VIRTUAL_MACHINE)

    def of(host: Host, spec: JobSpec) -> dict[str, str]:
        config = make_plan(spec, sample_remote_context(host=host)).config
        return {key: value for key, value in config.items() if "idmap" in key}

    assert {"security.idmap.isolated": "true"} == of(tls, sample_shell_job())
    assert str(MAP_SIZE) == of(ssh, sample_shell_job())["security.idmap.size"]
    assert {} == of(tls, sample_shell_job(run_as_root=True)) == of(tls, vm)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({"base": 1_065_536}, True),
        ({"base": 1_131_071}, True),
        ({"base": 1_131_072}, False),
        ({"base": 1_000_000}, False),
        ({"base": 1_000_000, "size": 65_537}, True),
        ({"base": 1_065_536, "isolated": "false"}, False),
        ({}, False),
    ],
)
async def test_a_map_that_incus_chose_is_compared_too(
    tmp_path: Path, other: dict[str, object], found: bool
) -> None:
    def listed(name: str, base: object = None, **keys: object) -> dict[str, object]:
        config = {"security.idmap.isolated": "true"}
        config |= {f"security.idmap.{key}": str(value) for key, value in keys.items()}
        volatile = {} if base is None else {"volatile.idmap.base": str(base)}
        shown = {"config": volatile, "expanded_config": config | volatile}
        return {"name": name, "project": "pikaci", **shown}

    async def spawn(argv: Sequence[str], **options: Any) -> Completed:
        rows = [listed("other", **other), listed("ours", base=1_065_536)]  # type: ignore[arg-type]
        await options["sink"](msgspec.json.encode(rows))
        return Completed(tuple(argv), 0, b"", b"")

    incus = Incus(tmp_path, remote="far", spawn=spawn)
    config = {"security.idmap.isolated": "true"}

    met = await Neighbours().find_same_ids(incus, "ours", config, daemon_secs=0)

    assert ("other of project pikaci" if found else "") == met
