"""Jobs of the containers' tests, as jobs of virtual machines; and how slow this host is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.image.machine import VM
from states.job import Job
from states.spec import Deadlines, InstanceType, JobSpec, size_in_bytes
from tests.integration.running import Runs

# Below these, our image does not boot, or not fit.
LEAST = {"memory": "1GiB", "disk": "6GiB"}


@dataclass(frozen=True)
class Bench:
    """What the rows use of this host: see docs/vm.md."""

    image: str
    slow: int
    cpus: int
    at_once: int


def bench() -> Bench:
    """As the environment says."""

    def number(name: str, default: int) -> int:
        return int(os.environ.get(f"PIKACI_TEST_{name}", default))

    return Bench(
        image=os.environ.get("PIKACI_TEST_VM_IMAGE", VM.alias),
        slow=number("SLOW", 1),
        cpus=number("VM_CPUS", 2),
        at_once=number("VM_AT_ONCE", 2),
    )


def slower(deadlines: Deadlines, slow: int) -> Deadlines:
    """Every deadline times `slow`, but for the grace period, which is a part of what is tested."""
    longer = {
        name: getattr(deadlines, name) * slow
        for name in deadlines.__struct_fields__
        if name != "grace_secs"
    }
    return msgspec.structs.replace(deadlines, **longer)


def as_machine(spec: JobSpec, host: Bench) -> JobSpec:
    """The job in a virtual machine: whatever it does, it does there."""
    image = {"image": host.image} if spec.image == JobSpec(command="true").image else {}
    sizes = {
        key: least
        for key, least in LEAST.items()
        if (size := getattr(spec, key)) is None or size_in_bytes(size) < size_in_bytes(least)
    }
    # A short timeout is what a test waits for; a long one is there for what goes wrong.
    timeout = spec.timeout_secs if spec.timeout_secs <= 10 else spec.timeout_secs * host.slow
    return msgspec.structs.replace(
        spec,
        instance_type=InstanceType.VIRTUAL_MACHINE,
        cpus=host.cpus,
        timeout_secs=timeout,
        deadlines=slower(spec.deadlines, host.slow),
        **image,
        **sizes,
    )


class MachineRuns(Runs):
    """Runs whose jobs are virtual machines, as many at once as the host can have."""

    async def run(self, specs: dict[str, JobSpec], **options: Any) -> dict[str, Job]:
        host = bench()
        options["parallel"] = min(options.get("parallel", host.at_once), host.at_once)
        return await super().run(
            {name: as_machine(spec, host) for name, spec in specs.items()}, **options
        )
