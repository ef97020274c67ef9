"""What a warm guest is made with, and what a job adds, is what a guest of its own has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given

from orchestrator.attempt.id_map import IdRange
from orchestrator.attempt.plan import Plan, PlanContext, make_plan
from orchestrator.attempt.warm import MAX_CHANGE_BYTES, change, idle_plan, kind_of
from orchestrator.incus import Host
from states.spec import InstanceType, JobSpec, Mount
from tests.samples import sample_remote_context, valid_specs

LATER = datetime(2030, 1, 1, tzinfo=UTC)
IDS = IdRange(1_000_000, 1_000_000_000)
PASSES = JobSpec(command="true")


def context(**changes: Any) -> PlanContext:
    return msgspec.structs.replace(sample_remote_context(), ids=IDS, **changes)


def idle(spec: JobSpec, about: PlanContext) -> Plan:
    return idle_plan(spec, about, instance="pikaci-w", session="s", deadline=LATER)


@given(valid_specs())
def test_both_parts_make_the_whole(spec: JobSpec) -> None:
    """Nothing of the job's own document is missing then, and nothing else is there."""
    about = context()
    before = idle(spec, about)
    after = make_plan(spec, msgspec.structs.replace(about, instance="pikaci-w"))
    added = change(before, after)

    assert after.config == before.config | added["config"]
    assert after.devices == before.devices | added["devices"]
    assert after.description == added["description"]


@given(valid_specs())
def test_a_warm_guest_has_nothing_of_a_job(spec: JobSpec) -> None:
    """No directory, no name, no secret: whoever looks at it learns of no job."""
    about = context()
    plan = idle(spec, about)
    text = msgspec.json.encode([plan.config, plan.devices, plan.description]).decode()

    assert about.job not in text
    assert about.snapshot not in text
    assert {"disk"} >= {one["type"] for one in plan.devices.values() if "source" in one}
    assert all(one["path"] == "/" for one in plan.devices.values() if one["type"] == "disk")
    assert ((), {}, {}, "") == (plan.mounts, plan.secrets, plan.environment, plan.command)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": "3GiB"},
        {"cpus": 7},
        {"disk": "7GiB"},
        {"processes": 99},
        {"network": "incusbr0"},
        {"run_as_root": True},
    ],
    ids=str,
)
def test_what_a_guest_is_made_with_tells_kinds_apart(changes: dict[str, Any]) -> None:
    """A job never gets a guest with other limits, or another way to the network."""
    other = msgspec.structs.replace(PASSES, **changes)

    assert kind_of(other, context()) != kind_of(PASSES, context()) is not None


@pytest.mark.parametrize(
    "changes", [{"fingerprint": "ab" * 32}, {"host": Host(name="far", remote="far")}], ids=str
)
def test_another_image_or_host_is_another_kind(changes: dict[str, Any]) -> None:
    """Whatever the spec says."""
    assert kind_of(PASSES, context(**changes)) != kind_of(PASSES, context())


def test_what_belongs_to_a_job_is_in_no_kind() -> None:
    """Another command, other variables, mounts, times, and another job."""
    other = JobSpec(
        command="false",
        env={"A": "b"},
        timeout_secs=7,
        mounts=(Mount(source="/data", path="/data"),),
        nix_store="/nix",
        egress=("*",),
        output="/artifacts/out",
        priority=3,
    )
    about = context(job="other.1", run="other", name="other", attempt=3, lease_ends=LATER)

    assert kind_of(other, about) == kind_of(PASSES, context())


def test_each_guest_has_an_id_map_of_its_own() -> None:
    """It follows from the name of the guest, which is in no kind."""
    one = idle_plan(PASSES, context(), instance="pikaci-a", session="s", deadline=LATER)
    other = idle_plan(PASSES, context(), instance="pikaci-b", session="s", deadline=LATER)

    assert one.config["security.idmap.base"] != other.config["security.idmap.base"]


def test_jobs_that_use_no_warm_guest() -> None:
    """Those in VMs, those on a cluster, and those whose change would be too long a command."""
    vm = msgspec.structs.replace(PASSES, instance_type=InstanceType.VIRTUAL_MACHINE)
    path = "/" + "x" * 4000
    many = tuple(Mount(source=f"{path}{n}", path=f"/m{n}") for n in range(MAX_CHANGE_BYTES // 4000))
    long = msgspec.structs.replace(PASSES, mounts=many)

    assert kind_of(vm, context()) is None
    assert kind_of(PASSES, context(member="m1")) is None
    assert kind_of(long, context()) is None
