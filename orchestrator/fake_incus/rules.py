"""What the daemon refuses in a new instance: names, config keys, devices."""

from __future__ import annotations

import os
import re

from orchestrator.fake_incus import words
from orchestrator.fake_incus.model import Device, Instance, Store
from orchestrator.fake_incus.words import Refused

_CONFIG_PREFIXES = (
    "agent.",
    "boot.",
    "cloud-init.",
    "cluster.",
    "environment.",
    "image.",
    "limits.",
    "linux.",
    "migration.",
    "nvidia.",
    "raw.",
    "security.",
    "snapshots.",
    "user.",
    "volatile.",
)
_DEVICE_KEYS = {
    "disk": (
        "path source pool readonly required shift size size.state propagation recursive"
        " io.bus io.cache io.threads boot.priority limits.max limits.read limits.write"
        " raw.mount.options ceph.cluster_name ceph.user_name initial.uid"
    ),
    "nic": (
        "name network nictype parent hwaddr mtu ipv4.address ipv6.address host_name"
        " boot.priority limits.ingress limits.egress limits.max security.mac_filtering"
        " security.ipv4_filtering security.ipv6_filtering security.acls security.port_isolation"
        " vlan queue.tx.length"
    ),
    "none": "",
    "unix-char": "source path major minor uid gid mode required",
    "tpm": "path pathrm",
}
# Incus's own lists (6.0.4: internal/instance/config.go, InstanceConfigKeysContainer and -VM).
_CONTAINER_KEYS = (
    "limits.cpu.allowance limits.cpu.priority limits.memory.enforce limits.memory.swap"
    " limits.memory.swap.priority limits.processes linux.kernel_modules"
    " migration.incremental.memory migration.incremental.memory.goal"
    " migration.incremental.memory.iterations nvidia.driver.capabilities nvidia.require.cuda"
    " nvidia.require.driver nvidia.runtime raw.lxc raw.seccomp security.guestapi.images"
    " security.idmap.base security.idmap.isolated security.idmap.size security.nesting"
    " security.privileged security.protection.shift"
).split()
_CONTAINER_PREFIXES = ("limits.kernel.", "linux.sysctl.", "security.syscalls.")
_VM_KEYS = (
    "agent.nic_config limits.memory.hugepages raw.qemu raw.qemu.conf raw.qemu.qmp.early"
    " raw.qemu.scriptlet security.agent.metrics security.csm security.iommu security.secureboot"
    " security.sev security.sev.policy.es security.sev.session.data security.sev.session.dh"
).split()
_BUSES = "nvme virtio-blk virtio-scsi auto 9p virtiofs usb"
_SHARE_BUSES = "auto 9p virtiofs"
_BOOLEANS = ("readonly", "required", "shift")
_DEVICE_NAME = re.compile(r"[A-Za-z0-9/:_.-]{1,63}")


def check_instance(store: Store, instance: Instance) -> None:
    """Raise `Refused` as the daemon would for this instance: same messages, same order."""
    for profile in instance.profiles:
        if profile not in store.profiles(instance.project):
            raise Refused(f'Requested profile "{profile}" doesn\'t exist')
    check_config(instance.config, during=words.RECORD)
    _check_type_of_config(instance.config, instance.type)
    _check_types(instance)
    if instance.name in store.project(instance.project).instances:
        raise Refused(words.NAME_TAKEN)
    _check_devices(store, instance)


def check_change(store: Store, instance: Instance) -> None:
    """Raise `Refused` if the daemon would not give these devices and settings to an instance."""
    check_config(instance.config, during=words.CHANGE)
    _check_types(instance)
    _check_devices(store, instance)


def _check_types(instance: Instance) -> None:
    for device in instance.devices.values():
        if device.get("type", "") not in _DEVICE_KEYS:
            raise Refused(words.unknown_device_type(device.get("type", "")))


def _check_devices(store: Store, instance: Instance) -> None:
    _, devices = store.expanded(instance)
    paths: set[str] = set()
    for name, device in sorted(devices.items()):
        _check_device(store, name, device, instance.type)
        path = device.get("path", "")
        if device["type"] == "disk" and path:
            if path in paths:
                reason = f'More than one disk device uses the same path "{path}"'
                raise Refused(words.invalid_device(name, reason))
            paths.add(path)
    roots = [device for device in devices.values() if device.get("path") == "/"]
    if not roots:
        raise Refused(words.NO_ROOT_AMONG_DEVICES if devices else words.NO_DEVICES)
    if roots[0].get("pool") not in store.pools:
        raise Refused(words.NO_SUCH_POOL)
    for name, device in sorted(devices.items()):
        source = device.get("source", "")
        if source and device.get("required") != "false" and not os.path.exists(source):
            raise Refused(words.missing_source(name, source))


def check_config(config: dict[str, str], *, during: str) -> None:
    """Raise `Refused` for a key that instances do not have; any key may begin with `user.`."""
    for key in config:
        if not key.startswith(_CONFIG_PREFIXES):
            raise Refused(f"{during}: {words.unknown_config(key)}")


def check_start(store: Store, instance: Instance) -> None:
    """Raise `Refused` if the daemon would create the instance, but not start it."""
    config, devices = store.expanded(instance)
    if instance.type == "container":
        return
    if (
        config.get("image.requirements.secureboot") == "false"
        and config.get("security.secureboot", "true") == "true"
    ):
        raise Refused(words.NEEDS_NO_SECUREBOOT)
    for name, device in sorted(devices.items()):
        bus = device.get("io.bus", "auto")
        if device.get("source") and bus not in _SHARE_BUSES.split():
            raise Refused(words.start_failed(name, words.none_of(bus, _SHARE_BUSES)))


def _check_type_of_config(config: dict[str, str], instance_type: str) -> None:
    # Incus 6.0.4 accepts a container's keys for a VM, because of missing brackets in
    # ConfigKeyChecker. Later releases do not, so no plan may rely on it.
    for key in config:
        if instance_type == "virtual-machine" and key.startswith("limits.kernel."):
            raise Refused(f"{words.RECORD}: {key} isn't supported for VMs")
        of_container = key in _CONTAINER_KEYS or key.startswith(_CONTAINER_PREFIXES)
        if (of_container and instance_type == "virtual-machine") or (
            key in _VM_KEYS and instance_type == "container"
        ):
            raise Refused(f"{words.RECORD}: {words.unknown_config(key)}")


def check_name(name: str) -> None:
    """Instance names are host names: 1 to 63 letters, digits and hyphens."""
    problem = ""
    if len(name) > 63:
        problem = "must be 1-63 characters long"
    elif name.startswith("-"):
        problem = 'must not start with "-" character'
    elif name.endswith("-"):
        problem = 'must not end with "-" character'
    elif name.isdigit():
        problem = "cannot be a number"
    elif not re.fullmatch(r"[A-Za-z0-9-]+", name):
        problem = "can only contain alphanumeric and hyphen characters"
    if problem:
        raise Refused(f"Invalid instance name: Name {problem}")


def _check_device(store: Store, name: str, device: Device, instance_type: str) -> None:
    reason = ""
    unknown = [key for key in device if key not in _DEVICE_KEYS[device["type"]].split()]
    unknown = [key for key in unknown if key != "type" and not key.startswith("user.")]
    wrong = [key for key in _BOOLEANS if device.get(key, "true") not in ("true", "false")]
    if not _DEVICE_NAME.fullmatch(name):
        reason = (
            "Name can only contain alphanumeric, forward slash, hyphen, colon, underscore and"
            " full stop characters"
        )
    elif unknown:
        reason = f'Invalid device option "{unknown[0]}"'
    elif wrong:
        reason = (
            f'Invalid value for device option "{wrong[0]}":'
            f' Invalid value for a boolean "{device[wrong[0]]}"'
        )
    elif device.get("io.bus", "auto") not in _BUSES.split():
        wrong_bus = words.none_of(device["io.bus"], _BUSES)
        reason = f'Invalid value for device option "io.bus": {wrong_bus}'
    elif device["type"] == "disk" and instance_type == "container" and device.get("io.bus"):
        reason = "IO bus configuration cannot be applied to containers"
    elif device["type"] == "disk" and not device.get("source") and device.get("path") != "/":
        reason = 'Disk entry is missing the required "source" or "path" property'
    if reason:
        raise Refused(words.invalid_device(name, reason))
    network = device.get("network", "")
    if network and network not in store.networks:
        raise Refused(words.missing_network(name, network))
