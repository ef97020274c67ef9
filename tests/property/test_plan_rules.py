"""Plans of both types, against the rules that Incus itself has for an instance."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import Plan, make_plan
from orchestrator.contract import contract
from orchestrator.fake_incus import Refused, furnished, rules, words
from orchestrator.fake_incus.model import Instance
from states.spec import InstanceType, JobSpec
from tests.samples import sample_remote_context, sample_shell_job, valid_specs

VM, CONTAINER = InstanceType.VIRTUAL_MACHINE, InstanceType.CONTAINER
# What a config may hold, by type; all else would be news to whoever reads it here.
SHARED = {"boot.autostart", "limits.cpu", "limits.memory"}
OWN = {
    CONTAINER: {"limits.processes", "security.syscalls.deny"},
    VM: {"security.secureboot"},
}


def of_type(instance_type: InstanceType) -> st.SearchStrategy[JobSpec]:
    return valid_specs().map(
        lambda spec: msgspec.structs.replace(spec, instance_type=instance_type)
    )


def plan_of(spec: JobSpec) -> Plan:
    return make_plan(spec, sample_remote_context(snapshot="/usr"))


def accept(plan: Plan) -> None:
    """Have the rules look at the plan's very document, as `create` and `start` do."""
    store = furnished()
    store.networks.append("incusbr0")
    document = msgspec.json.decode(commands.create_document(plan))
    # That a source is there is the host's matter.
    devices = {
        name: {**device, **({"source": "/usr"} if "source" in device else {})}
        for name, device in document["devices"].items()
    }
    instance = Instance(
        name=plan.instance,
        project=plan.host.project,
        image="",
        type=plan.instance_type,
        config=document["config"] | {"image.requirements.secureboot": "false"},
        devices=devices,
    )
    rules.check_instance(store, instance)
    rules.check_start(store, instance)


@given(valid_specs())
def test_incus_takes_every_plan(spec: JobSpec) -> None:
    """Whatever passes as a spec is an instance that Incus makes and starts."""
    accept(plan_of(spec))


@given(valid_specs())
def test_no_share_can_be_written(spec: JobSpec) -> None:
    """Every disk of the host's is read-only; the one that is not is the guest's own root disk."""
    devices = plan_of(spec).devices
    root = devices.pop("root")
    shares = [device for device in devices.values() if device["type"] == "disk"]

    assert {"type": "disk", "path": "/", "pool": "pikaci", "size": spec.disk} == root
    assert {"true"} == {share["readonly"] for share in shares}
    assert contract().devices["pikaci-snapshot"] in [share["path"] for share in shares]
    assert len(devices) - len(shares) == (spec.network != "none")


@given(of_type(VM))
def test_the_shares_of_a_vm(spec: JobSpec) -> None:
    """Always virtiofs, never shifted: Incus would fall back to 9p where it is not said."""
    plan = plan_of(spec)
    kinds = {
        (device["io.bus"], device["shift"])
        for device in plan.devices.values()
        if device["type"] == "disk" and device["path"] != "/"
    }

    assert {("virtiofs", "false")} == kinds
    assert "--vm" in commands.create(plan).args


@given(of_type(CONTAINER))
def test_the_shares_of_a_container(spec: JobSpec) -> None:
    """Always shifted, and without io.bus, which Incus refuses there."""
    plan = plan_of(spec)

    for device in plan.devices.values():
        assert "io.bus" not in device
        assert device["type"] == "nic" or device["path"] == "/" or device["shift"] == "true"
    assert "--vm" not in commands.create(plan).args


@given(valid_specs())
def test_each_type_has_keys_of_its_own(spec: JobSpec) -> None:
    """Limits for both; a VM has a kernel of its own to keep, a container no secure boot."""
    config = plan_of(spec).config
    keys = {key for key in config if not key.startswith("user.pikaci.")}

    assert SHARED | OWN[spec.instance_type] == keys
    assert (str(spec.cpus), spec.memory) == (config["limits.cpu"], config["limits.memory"])
    assert config.get("security.secureboot", "false") == "false"


@given(of_type(CONTAINER))
def test_containers_share_no_kernel_object_that_carries_data(spec: JobSpec) -> None:
    """Key rings and the kernel's log never; without a network no socket that leaves its namespace.

    A line's first word is the syscall, the second what it does: none kills the caller.
    """
    lines = [line.split() for line in plan_of(spec).config["security.syscalls.deny"].split("\n")]
    denied = {line[0] for line in lines}
    families = {line[3] for line in lines if line[0] == "socket"}

    assert {"errno"} == {line[1] for line in lines}
    assert {"add_key", "keyctl", "request_key", "syslog"} <= denied
    assert (spec.network == "none") == ("socket" in denied) == ("io_uring_setup" in denied)
    if spec.network == "none":
        # With the mask, as the kernel reads 32 bits of an argument that has 64.
        assert families == {f"[0,{n},SCMP_CMP_MASKED_EQ,0xffffffff]" for n in (40, 42)}


BAD_SNAPSHOT = (
    "Failed creating instance record: Failed initializing instance: Invalid devices: Device"
    ' validation failed for "pikaci-snapshot": '
)
BROKEN: dict[str, tuple[InstanceType, Callable[[Plan], object], str]] = {
    "a container with a bus": (
        CONTAINER,
        lambda plan: plan.devices["pikaci-snapshot"].update({"io.bus": "virtiofs"}),
        f"{BAD_SNAPSHOT}IO bus configuration cannot be applied to containers",
    ),
    "a VM with no such bus": (
        VM,
        lambda plan: plan.devices["pikaci-snapshot"].update({"io.bus": "virtio-fs"}),
        f'{BAD_SNAPSHOT}Invalid value for device option "io.bus": Invalid value "virtio-fs"'
        " (not one of [nvme virtio-blk virtio-scsi auto 9p virtiofs usb])",
    ),
    "a VM with the bus of a block device": (
        VM,
        lambda plan: plan.devices["pikaci-snapshot"].update({"io.bus": "nvme"}),
        'Failed to start device "pikaci-snapshot": Invalid value "nvme"'
        " (not one of [auto 9p virtiofs])",
    ),
    "a VM with secure boot": (
        VM,
        lambda plan: plan.config.pop("security.secureboot"),
        words.NEEDS_NO_SECUREBOOT,
    ),
    "a container with secure boot": (
        CONTAINER,
        lambda plan: plan.config.update({"security.secureboot": "false"}),
        "Failed creating instance record: Unknown configuration key: security.secureboot",
    ),
    "a VM with a limit of processes": (
        VM,
        lambda plan: plan.config.update({"limits.processes": "99"}),
        "Failed creating instance record: Unknown configuration key: limits.processes",
    ),
    "a VM with a kernel limit": (
        VM,
        lambda plan: plan.config.update({"limits.kernel.nofile": "99"}),
        "Failed creating instance record: limits.kernel.nofile isn't supported for VMs",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plan_is_refused(how: str) -> None:
    """In Incus's words: the rules see what a plan gets wrong."""
    instance_type, spoil, expected = BROKEN[how]
    plan = plan_of(sample_shell_job(instance_type=instance_type))
    accept(plan)
    spoil(plan)

    with pytest.raises(Refused) as refused:
        accept(plan)

    assert expected == str(refused.value)
