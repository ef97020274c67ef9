"""What only a virtual machine has: its own kernel, its size, its boot."""

from __future__ import annotations

import json
import platform
from functools import partial

import pytest
import trio

from orchestrator.attempt.plan import Host
from orchestrator.image.check import Row, check_image
from orchestrator.incus import Incus, to_sink
from states.outcome import Outcome
from states.spec import Deadlines, JobSpec
from tests.calls import call
from tests.integration.running import Runs, infrastructure, output_of

from .machine import Bench

pytestmark = pytest.mark.vm

LOOK = """
findmnt -no FSTYPE,OPTIONS /workspace/snapshot
nproc; awk '/MemTotal/ { print $2 }' /proc/meminfo; df --output=size -k / | tail -1
uname -r; cat /sys/class/dmi/id/sys_vendor; systemctl is-system-running || true
systemctl --failed --no-legend --plain
"""


async def test_its_size_and_kernel_are_its_own(runs: Runs, host: Bench) -> None:
    """Shares are virtiofs, the root disk has grown, no unit failed, and the agent announced it."""
    job = await runs.run_one(JobSpec(command=LOOK, memory="1GiB", disk="8GiB"))

    assert Outcome.PASSED == job.outcome, output_of(job)
    share, processors, memory, disk, kernel, vendor, state, *failed = (
        output_of(job).decode().splitlines()
    )
    assert "virtiofs" == share.split()[0]
    assert "ro" in share.split()[1].split(",")
    assert host.cpus == int(processors)
    assert 0.8 < int(memory) / (1 << 20) <= 1
    assert 7 < int(disk) / (1 << 20) <= 8
    assert platform.release() != kernel
    assert "QEMU" == vendor
    assert ("running", []) == (state, failed)


async def test_the_guest_announces_itself(runs: Runs, incus: Incus) -> None:
    """The daemon passes it on, and only then does the runner start."""
    said = bytearray()

    async def take(chunk: bytes) -> None:
        said.extend(chunk)

    async with trio.open_nursery() as nursery:
        options = {"deadline_secs": 36_000, "into": to_sink(take)}
        listen = partial(call, incus, "monitor", "--type=lifecycle", "--format=json", **options)
        nursery.start_soon(listen)
        job = await runs.run_one(JobSpec(command="true"))
        nursery.cancel_scope.cancel()
    events = [json.loads(line)["metadata"] for line in said.splitlines() if line.strip()]
    actions = [event["action"] for event in events if event.get("name") == job.instance]

    assert Outcome.PASSED == job.outcome
    assert "instance-ready" in actions
    begun, ready = actions.index("instance-started"), actions.index("instance-ready")
    assert begun < ready < len(actions) - 1 - actions[::-1].index("instance-exec")


async def test_the_image_keeps_the_contract(incus: Incus, host: Bench) -> None:
    """Every row of `pikaci image check`, the guest's own shutdown among them."""
    rows: list[Row] = []
    await check_image(incus, Host(), host.image, tell=rows.append, owner="test", slow=host.slow)

    assert [] == [row for row in rows if not row.kept]
    assert 15 < len(rows)


async def test_a_boot_that_takes_too_long(runs: Runs) -> None:
    """The deadline is the job's; the machine is gone."""
    spec = JobSpec(command="true", retries=0, deadlines=Deadlines(start_secs=1))

    job = await runs.run_one(spec)

    assert infrastructure(job)
    assert job.failure is not None
    assert "start_secs" in job.failure.resolution + job.failure.message


async def test_too_little_memory(runs: Runs) -> None:
    """The command is killed, not the agent: the verdict is its own, with a hint."""
    # Piece by piece: the kernel refuses what is more than the machine has at once.
    hungry = "python3 -c 'x = [bytes([1]) * (16 << 20) for _ in range(200)]'"

    job = await runs.run_one(JobSpec(command=hungry, memory="1GiB"))

    assert (Outcome.FAILED, 137) == (job.outcome, job.exit_code)
    assert job.failure is not None
    assert "set memory" in job.failure.resolution


async def test_too_little_disk(runs: Runs) -> None:
    """The disk ends where the job's limit is; the result is whole."""
    job = await runs.run_one(
        JobSpec(command="fallocate -l 20G /artifacts/big || exit 6", disk="6GiB")
    )

    assert (Outcome.FAILED, 6) == (job.outcome, job.exit_code)
