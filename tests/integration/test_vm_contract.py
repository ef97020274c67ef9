"""Virtual machines, on the fake and on a real daemon that takes its host for one that has them.

What is refused, and in which words, is Incus's own; that a VM boots is for docs/vm.md.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import Plan, make_plan
from orchestrator.fake_incus import FakeIncus, Image, words
from orchestrator.incus import Incus
from orchestrator.incus.errors import IncusError
from states.spec import InstanceType, JobSpec, Mount
from tests.integration.lab import PROJECT, Lab, said
from tests.integration.vm_daemon import VM_IMAGE
from tests.integration.vm_daemon import vm_daemon_of_all as vm_daemon_of_all
from tests.samples import sample_remote_context

VM, CONTAINER = InstanceType.VIRTUAL_MACHINE, InstanceType.CONTAINER
COMMAND = "from orchestrator.cli import main; main()"
FAKE_FINGERPRINT = "b00" * 21 + "b"
# One daemon for all of them.
pytestmark = pytest.mark.xdist_group("vm_daemon")


@pytest.fixture(params=["object", pytest.param("real", marks=pytest.mark.incus)])
async def lab(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Lab]:
    """A lab that has a VM's image."""
    if request.param == "object":
        async with FakeIncus.open() as fake:
            fake.store.project(PROJECT).images[FAKE_FINGERPRINT] = Image(
                FAKE_FINGERPRINT,
                aliases=[VM_IMAGE],
                type=VM,
                properties={"pikaci.contract": "1", "requirements.secureboot": "false"},
            )
            yield Lab(Incus(tmp_path / "conf", project=PROJECT, spawn=fake), fake)
        return
    monkeypatch.setenv("INCUS_DIR", str(request.getfixturevalue("vm_daemon_of_all")))
    monkeypatch.delenv("INCUS_SOCKET", raising=False)
    lab = Lab(Incus(tmp_path / "conf", project=PROJECT))
    try:
        yield lab
    finally:
        await lab.clean_up()


def plan_of(base: Path, instance_type: InstanceType = VM, **changes: Any) -> Plan:
    """A plan with every device that there is, and an instance name of its own."""
    spec = JobSpec(
        command="true",
        instance_type=instance_type,
        image=VM_IMAGE,
        workspace_deps=str(base),
        workspace_build=str(base),
        nix_store=str(base),
        mounts=(Mount(source=str(base), path="/mnt/more"),),
        **changes,
    )
    context = sample_remote_context(snapshot=str(base), job=secrets.token_hex(6))
    return make_plan(spec, context)


async def create(lab: Lab, plan: Plan) -> None:
    image = await lab.query(f"/1.0/images/aliases/{VM_IMAGE}")
    plan = msgspec.structs.replace(plan, fingerprint=image["target"])
    lab.made.append(plan.instance)
    await lab.create_stopped(plan)


async def test_incus_makes_the_plans_vm(lab: Lab, tmp_path: Path) -> None:
    """Every device and key of the plan is in it; the root disk has its size."""
    plan = plan_of(tmp_path, disk="20GiB", cpus=3, memory="2GiB")
    await create(lab, plan)
    seen = await lab.instance(plan.instance)

    assert ("virtual-machine", plan.devices) == (seen["type"], seen["devices"])
    assert plan.config.items() <= seen["config"].items()
    assert "20GiB" == seen["devices"]["root"]["size"]
    assert "false" == seen["config"]["image.requirements.secureboot"]


async def test_the_image_alone_makes_a_vm(lab: Lab, tmp_path: Path) -> None:
    """Incus makes a VM with a container's devices of such a plan: so pikaci looks at the type."""
    plan = plan_of(tmp_path, CONTAINER)
    # Later releases of Incus refuse these for a VM, and so does the fake.
    for key in ("limits.processes", "security.syscalls.deny"):
        del plan.config[key]
    await create(lab, plan)
    seen = await lab.instance(plan.instance)

    assert "--vm" not in commands.create(plan).args
    assert ("virtual-machine", "true") == (
        seen["type"],
        seen["devices"]["pikaci-snapshot"]["shift"],
    )


INIT = "Failed creating instance record: Failed initializing instance: Invalid devices:"
BAD_SNAPSHOT = f'{INIT} Device validation failed for "pikaci-snapshot":'
BROKEN: dict[str, tuple[Callable[[Plan], object], str]] = {
    "a bus that there is not": (
        lambda plan: plan.devices["pikaci-snapshot"].update({"io.bus": "virtio-fs"}),
        f'{BAD_SNAPSHOT} Invalid value for device option "io.bus": Invalid value "virtio-fs"'
        " (not one of [nvme virtio-blk virtio-scsi auto 9p virtiofs usb])",
    ),
    "a shift that is no boolean": (
        lambda plan: plan.devices["pikaci-snapshot"].update({"shift": "maybe"}),
        f'{BAD_SNAPSHOT} Invalid value for device option "shift":'
        ' Invalid value for a boolean "maybe"',
    ),
    "a kernel limit": (
        lambda plan: plan.config.update({"limits.kernel.nofile": "9"}),
        "Failed creating instance record: limits.kernel.nofile isn't supported for VMs",
    ),
    "no root disk": (
        lambda plan: plan.devices.pop("root"),
        f"{INIT} Failed detecting root disk device: No root device could be found",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_what_a_vm_cannot_have(lab: Lab, tmp_path: Path, how: str) -> None:
    """A plan that were wrong is refused, in the same words by the fake and by Incus."""
    spoil, expected = BROKEN[how]
    plan = plan_of(tmp_path)
    spoil(plan)

    with pytest.raises(IncusError) as error:
        await create(lab, plan)

    assert expected == said(error)


async def test_an_image_that_nobody_signed_needs_secure_boot_off(lab: Lab, tmp_path: Path) -> None:
    """Incus looks when it starts the instance, at what the image said."""
    plan = plan_of(tmp_path)
    del plan.config["security.secureboot"]
    await create(lab, plan)

    with pytest.raises(IncusError) as error:
        await lab.incus.perform(commands.start(plan))

    assert words.NEEDS_NO_SECUREBOOT == said(error)


async def test_what_a_container_cannot_have(lab: Lab, tmp_path: Path) -> None:
    """A VM's key is unknown to a container: the plan's two configs are no accident."""
    plan = plan_of(tmp_path, CONTAINER)
    plan.config["security.secureboot"] = "false"

    with pytest.raises(IncusError) as error:
        await create_of_nothing(lab, plan)

    assert "Failed creating instance record: Unknown configuration key: security.secureboot" == (
        said(error)
    )


async def create_of_nothing(lab: Lab, plan: Plan) -> None:
    """A container: of pikaci/dev on the fake, without an image on the daemon that has none."""
    lab.made.append(plan.instance)
    _, *words_before, _, name = commands.create(plan).args
    image = ["--empty"] if not isinstance(lab.spawn, FakeIncus) else ["local:pikaci/dev"]
    await lab.run("create", *words_before, *image, name, stdin=commands.create_document(plan))


@pytest.mark.parametrize("lab", [pytest.param("real", marks=pytest.mark.incus)], indirect=True)
async def test_a_vm_that_a_power_cut_spoilt_is_deleted(lab: Lab, tmp_path: Path) -> None:
    """Its firmware's file is empty, so it never starts: the reaper does not need that it could."""
    plan = plan_of(tmp_path)
    plan.config["user.pikaci.deadline"] = "2000-01-01T00:00:00+00:00"
    await create(lab, plan)
    machine = Path(os.environ["INCUS_DIR"], "virtual-machines", f"{PROJECT}_{plan.instance}")
    (machine / "OVMF_VARS.fd").write_bytes(b"")
    (machine / "qemu.nvram").symlink_to("OVMF_VARS.fd")
    with pytest.raises(IncusError):
        await lab.incus.perform(commands.start(plan))

    done = await trio.run_process(
        [sys.executable, "-c", COMMAND, "reap", "--expired"],
        env={**os.environ, "PIKACI_STATE_ROOT": str(tmp_path / "state")},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert plan.instance in done.stdout.decode()
    assert not machine.exists()
