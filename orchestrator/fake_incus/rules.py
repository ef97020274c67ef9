"""What the daemon refuses when an instance is created: names, config keys, devices."""

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
    "disk": frozenset(
        "path source pool readonly required shift size size.state propagation recursive"
        " io.bus io.cache io.threads boot.priority limits.max limits.read limits.write"
        " raw.mount.options ceph.cluster_name ceph.user_name initial.uid".split()
    ),
    "nic": frozenset(
        "name network nictype parent hwaddr mtu ipv4.address ipv6.address host_name"
        " boot.priority limits.ingress limits.egress limits.max security.mac_filtering"
        " security.ipv4_filtering security.ipv6_filtering security.acls security.port_isolation"
        " vlan queue.tx.length".split()
    ),
    "none": frozenset[str](),
    "unix-char": frozenset("source path major minor uid gid mode required".split()),
    "tpm": frozenset("path pathrm".split()),
}
_DEVICE_NAME = re.compile(r"[A-Za-z0-9/:_.-]{1,63}")


def check_instance(store: Store, instance: Instance) -> None:
    """Raise `Refused`, in the daemon's words and order, when it would refuse this instance."""
    check_name(instance.name)
    for key in instance.config:
        if not key.startswith(_CONFIG_PREFIXES):
            raise Refused(f"Failed instance creation: Unknown configuration key: {key}")
    taken: dict[str, str] = {}
    for name, device in sorted(instance.devices.items()):
        _check_device(name, device, instance.type)
        if device.get("type") == "disk":
            path = device.get("path", "").rstrip("/") or "/"
            if path in taken:
                raise Refused(
                    "Failed instance creation: Invalid devices: Detected duplicate disk device"
                    f' path "{path}"'
                )
            taken[path] = name
    _, devices = store.expanded(instance)
    roots = [device for device in devices.values() if device.get("path") == "/"]
    if not roots:
        raise Refused(words.NO_ROOT_DISK)
    if roots[0].get("pool") not in store.pools:
        raise Refused(f"Failed instance creation: {words.POOL_NOT_FOUND}")
    if instance.name in store.project(instance.project).instances:
        raise Refused(words.NAME_TAKEN)
    for name, device in sorted(devices.items()):
        _check_source(name, device)


def check_name(name: str) -> None:
    """Instance names are host names: 1 to 63 letters, digits and hyphens."""
    problem = ""
    if len(name) > 63:
        problem = "Name must be 1-63 characters long"
    elif name.startswith("-"):
        problem = 'Name must not start with "-" character'
    elif name.endswith("-"):
        problem = 'Name must not end with "-" character'
    elif name.isdigit():
        problem = "Name cannot be a number"
    elif not re.fullmatch(r"[A-Za-z0-9-]+", name):
        problem = "Name can only contain alphanumeric and hyphen characters"
    if problem:
        raise Refused(f"Failed instance creation: Invalid instance name: {problem}")


def _check_device(name: str, device: Device, instance_type: str) -> None:
    if not _DEVICE_NAME.fullmatch(name):
        raise Refused(words.invalid_device(name, "Invalid device name"))
    kind = device.get("type", "")
    if kind not in _DEVICE_KEYS:
        raise Refused(words.invalid_device(name, f'Unsupported device type "{kind}"'))
    for key in device:
        if key != "type" and key not in _DEVICE_KEYS[kind] and not key.startswith("user."):
            raise Refused(words.invalid_device(name, f'Invalid device option "{key}"'))
    if kind == "disk":
        _check_disk(name, device, instance_type)


def _check_disk(name: str, device: Device, instance_type: str) -> None:
    if not device.get("path"):
        raise Refused(
            words.invalid_device(name, "Disk entry is missing the required path property")
        )
    if instance_type == "container" and device.get("io.bus"):
        raise Refused(
            words.invalid_device(name, "IO bus configuration cannot be applied to containers")
        )
    if not device.get("source") and not device.get("pool"):
        raise Refused(
            words.invalid_device(name, 'Disk entry is missing the required "source" property')
        )


def _check_source(name: str, device: Device) -> None:
    source = device.get("source", "")
    if device.get("type") != "disk" or not source or device.get("pool"):
        return
    if device.get("required") != "false" and not os.path.exists(source):
        raise Refused(
            "Failed instance creation: Failed creating instance record: Failed initializing"
            f' instance: Failed add validation for device "{name}": Missing source path'
            f' "{source}" for disk "{name}"'
        )
