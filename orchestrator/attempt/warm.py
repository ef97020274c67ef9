"""Warm guests: which jobs one fits, what it is made with, and what it gets from its job. Pure.

A warm guest is made as its job would make it, but for what belongs to the job. All that is left is
its kind: a job may use a guest of its own kind, so no list says which settings must be equal.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from orchestrator.attempt.plan import Plan, PlanContext, make_plan
from states.spec import InstanceType, JobSpec

# A change is an argument of a command, which the kernel limits to 128 KiB.
MAX_CHANGE_BYTES = 100_000
_OF_JOB = ("user.pikaci.job", "user.pikaci.attempt")
_NEVER = datetime.fromtimestamp(0, UTC)


class Kind(msgspec.Struct, frozen=True):
    """What a warm guest and a job must have in common; `document` is all that it is made with."""

    host: str
    fingerprint: str
    instance_type: InstanceType
    document: bytes


def kind_of(spec: JobSpec, context: PlanContext) -> Kind | None:
    """The kind of warm guest that the job of a plan can use; None if it uses none.

    Jobs in VMs use none: whether Incus can bring a directory to a VM that runs was never seen. Nor
    do those on a cluster, which get a member only when they start.
    """
    if spec.instance_type is not InstanceType.CONTAINER or context.member:
        return None
    if len(_document(make_plan(spec, context))) > MAX_CHANGE_BYTES:
        return None
    # Without what differs between guests of one kind. An id map follows from the name.
    plan = idle_plan(spec, context, instance="-", session="", deadline=_NEVER)
    return Kind(plan.host.name, plan.fingerprint, plan.instance_type, _document(plan))


def _document(plan: Plan) -> bytes:
    return msgspec.json.encode([plan.config, plan.devices])


def idle_plan(
    spec: JobSpec,
    context: PlanContext,
    *,
    instance: str,
    session: str,
    deadline: datetime,
    begun: datetime | None = None,
) -> Plan:
    """The plan of a guest that is of the kind of the job of a plan, and waits for any such job.

    It belongs to the `session` of its process, is `begun` now, and may be deleted after its
    `deadline`.
    """
    about = msgspec.structs.replace(
        context,
        instance=instance,
        run=session,
        job="",
        name="",
        attempt=0,
        lease_ends=deadline,
        begun=begun,
    )
    plan = make_plan(spec, about)
    return msgspec.structs.replace(
        plan,
        description="pikaci warm guest",
        config={key: value for key, value in plan.config.items() if key not in _OF_JOB},
        devices={
            name: device
            for name, device in plan.devices.items()
            if device["type"] != "disk" or device["path"] == "/"
        },
        mounts=(),
        command="",
        environment={},
        secrets={},
        artifacts=(),
        junit=(),
        output=None,
        egress=(),
        mirror_hosts=(),
    )


def change(idle: Plan, plan: Plan) -> dict[str, Any]:
    """What makes the guest that was made by `idle` the one of the job's plan, for Incus's API."""
    return {
        "description": plan.description,
        "config": _new(idle.config, plan.config),
        "devices": _new(idle.devices, plan.devices),
    }


def _new(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in after.items() if before.get(key) != value}
