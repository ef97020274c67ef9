"""What an instance is made from, and what Incus refuses: on the fake, its program, a daemon."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.attempt.id_map import IdRange, id_map_config
from orchestrator.attempt.same_ids import Neighbours
from orchestrator.incus.errors import (
    ImageNotFound,
    IncusError,
    InstanceNotFound,
    PoolNotFound,
)
from tests.integration.lab import IMAGE, PROJECT, ROOT, Lab, disk, on_the_program_too, said


@on_the_program_too
async def test_create_keeps_what_the_document_says(lab: Lab, tmp_path: Path) -> None:
    """Config, devices, description and image of a created, stopped instance can be read back."""
    share = disk(str(tmp_path), "/workspace/snapshot", readonly="true", shift="true")
    name = lab.name()
    await lab.create(
        name,
        description="a job",
        config={"limits.cpu": 1, "user.flag": True},
        devices={"pikaci-snapshot": share},
    )
    seen = await lab.instance(name)
    images = await lab.query("/1.0/images", recursion="1")
    fingerprint = next(
        image["fingerprint"]
        for image in images
        if IMAGE in [alias["name"] for alias in image["aliases"]]
    )

    assert ("Stopped", 102, "container") == (seen["status"], seen["status_code"], seen["type"])
    assert (name, PROJECT, "a job") == (seen["name"], seen["project"], seen["description"])
    assert {"root": ROOT, "pikaci-snapshot": share} == seen["devices"]
    assert ("1", "true") == (seen["config"]["limits.cpu"], seen["config"]["user.flag"])
    assert lab.owner == seen["config"]["user.pikaci.owner"]
    assert fingerprint == seen["config"]["volatile.base_image"]
    assert [] == seen["profiles"]


async def test_create_by_fingerprint(lab: Lab) -> None:
    """An image goes by its fingerprint, and by the beginning of it, as by its alias."""
    fingerprint = (await lab.query(f"/1.0/images/aliases/{IMAGE}"))["target"]
    whole, short = lab.name(), lab.name()
    await lab.create(whole, image=fingerprint)
    await lab.create(short, image=fingerprint[:12])

    for name in (whole, short):
        assert fingerprint == (await lab.instance(name))["config"]["volatile.base_image"]


async def test_create_without_a_network_says_so_and_succeeds(lab: Lab) -> None:
    """stderr holds a note while the exit code is 0: it is no sign of failure."""
    done = await lab.create(lab.name())

    assert 0 == done.exit_code
    assert b"" == done.stdout
    assert b"doesn't have any network attached to it" in done.stderr


async def test_unknown_top_level_keys_are_ignored(lab: Lab) -> None:
    """A misspelt key of the document is not noticed; nor is the type, which has a flag."""
    name = lab.name()
    await lab.create(name, devises={"x": {}}, type="virtual-machine", ephemeral=True)
    seen = await lab.instance(name)

    assert ("container", False) == (seen["type"], seen["ephemeral"])
    assert {"root": ROOT} == seen["devices"]


async def test_no_profiles_needs_its_flag(lab: Lab) -> None:
    """An empty list of profiles in the document means the default one: the flag means none."""
    listed, flagged = lab.name(), lab.name()
    await lab.create(listed, flags=(), profiles=[])
    await lab.create(flagged)

    assert ["default"] == (await lab.instance(listed))["profiles"]
    assert [] == (await lab.instance(flagged))["profiles"]


async def test_flags_add_to_the_document(lab: Lab) -> None:
    """`--config` stands above what the document says under the same key."""
    name = lab.name()
    flags = ("--no-profiles", "--config", "user.a=flag", "-c", "user.b=x=y")
    await lab.create(name, flags=flags, config={"user.a": "document", "user.c": "document"})
    config = (await lab.instance(name))["config"]

    assert ("flag", "x=y", "document") == tuple(config[f"user.{key}"] for key in "abc")


async def test_empty_name_is_made_up(lab: Lab) -> None:
    """A create without a name succeeds, and its instance has a name that nobody chose."""
    done = await lab.create("")
    name = done.stdout.decode().removeprefix("Instance name is: ").strip()
    lab.made.append(name)

    assert lab.owner == (await lab.instance(name))["config"]["user.pikaci.owner"]


async def test_unknown_remote(lab: Lab) -> None:
    """A remote that is not configured is named."""
    with pytest.raises(IncusError) as error:
        await lab.run("delete", "no-such-remote:x")

    assert 'The remote "no-such-remote" doesn\'t exist' == said(error)


RECORD = "Failed creating instance record"
INIT = f"{RECORD}: Failed initializing instance"
BAD_DEVICE = f"{INIT}: Invalid devices:"
BAD_D = f'{BAD_DEVICE} Device validation failed for "d":'
REFUSED: dict[str, tuple[dict[str, Any], type[IncusError], str]] = {
    "no root disk": (
        {"devices": {"root": None, "d": disk("/usr", "/m")}},
        IncusError,
        f"{BAD_DEVICE} Failed detecting root disk device: No root device could be found",
    ),
    "no device at all": (
        {"devices": {"root": None}},
        IncusError,
        f"{INIT}: Failed getting root disk: No root device could be found",
    ),
    "unknown pool": (
        {"devices": {"root": {**ROOT, "pool": "no-such-pool"}}},
        PoolNotFound,
        f"{INIT}: Failed loading storage pool: Storage pool not found",
    ),
    "unknown config key": (
        {"config": {"foo": "1"}},
        IncusError,
        f"{RECORD}: Unknown configuration key: foo",
    ),
    "unknown device key": (
        {"devices": {"d": disk("/usr", "/m", readonli="true")}},
        IncusError,
        f'{BAD_D} Invalid device option "readonli"',
    ),
    "not a boolean": (
        {"devices": {"d": disk("/usr", "/m", readonly="maybe")}},
        IncusError,
        (
            f"{BAD_D} Invalid value for device option"
            ' "readonly": Invalid value for a boolean "maybe"'
        ),
    ),
    "unknown device type": (
        {"devices": {"d": {"type": "disque"}}},
        IncusError,
        f'{RECORD}: Invalid device type "disque"',
    ),
    "bad device name": (
        {"devices": {"a b": disk("/usr", "/m")}},
        IncusError,
        (
            f'{BAD_DEVICE} Device validation failed for "a b": Name can only contain alphanumeric,'
            " forward slash, hyphen, colon, underscore and full stop characters"
        ),
    ),
    "io.bus on a container": (
        {"devices": {"d": disk("/usr", "/m", **{"io.bus": "virtiofs"})}},
        IncusError,
        f"{BAD_D} IO bus configuration cannot be applied to containers",
    ),
    "two disks on one path": (
        {"devices": {"a": disk("/usr", "/m"), "b": disk("/usr", "/m")}},
        IncusError,
        (
            f'{BAD_DEVICE} Device validation failed for "?": More than one disk device uses'
            ' the same path "/m"'
        ),
    ),
    "missing source path": (
        {"devices": {"d": disk("/no/such/path", "/m")}},
        IncusError,
        (
            f"{INIT}: Failed add validation for"
            ' device "d": Missing source path "/no/such/path" for disk "d"'
        ),
    ),
    "missing network": (
        {"devices": {"eth0": {"type": "nic", "name": "eth0", "network": "no-such-net"}}},
        IncusError,
        (
            f'{BAD_DEVICE} Device validation failed for "eth0": Failed loading device "eth0":'
            ' Failed to load network "no-such-net" for project "default": Network not found'
        ),
    ),
    "missing profile": (
        {"flags": (), "profiles": ["no-such-profile"]},
        IncusError,
        'Requested profile "no-such-profile" doesn\'t exist',
    ),
    "a VM from a container's image": (
        {"flags": ("--no-profiles", "--vm")},
        IncusError,
        "Asked for a VM but image is of type container",
    ),
    "missing image": (
        {"image": "no/such-image"},
        ImageNotFound,
        'Image "no/such-image" not found',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_create_refuses(lab: Lab, case: str) -> None:
    """What is wrong with an instance is said at create, as a type, and nothing is made."""
    document, kind, words = REFUSED[case]
    name = lab.name()
    with pytest.raises(IncusError) as error:
        await lab.create(name, **document)

    # Of two devices that collide, the daemon names now the one, now the other.
    heard = re.sub(r'for "[ab]":', 'for "?":', said(error))
    assert (kind, words) == (type(error.value), heard)
    with pytest.raises(InstanceNotFound):
        await lab.instance(name)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("-x", 'must not start with "-" character'),
        ("x-", 'must not end with "-" character'),
        ("0123456789", "cannot be a number"),
        ("a_b", "can only contain alphanumeric and hyphen characters"),
        ("a.b", "can only contain alphanumeric and hyphen characters"),
        ("a" * 64, "must be 1-63 characters long"),
    ],
)
async def test_create_refuses_names(lab: Lab, name: str, problem: str) -> None:
    """An instance's name is a host's name."""
    with pytest.raises(IncusError) as error:
        await lab.create(name)

    assert f"Invalid instance name: Name {problem}" == said(error)


@on_the_program_too
async def test_a_map_of_ids_is_given_as_asked_for_even_twice(lab: Lab) -> None:
    """So it must be looked up who has it: in the config, and across all projects."""
    ids = IdRange(1_000_000, 1_000_000_000)
    first, second, other = lab.name(), lab.name(), lab.name()
    config = id_map_config(ids, first)
    await lab.create(other, config=id_map_config(ids, other))
    await lab.create(first, config=config)
    alone = await Neighbours().find_same_ids(lab.incus, first, config, daemon_secs=0)
    await lab.create(second, config=config)
    seen = await lab.instance(first)

    assert config["security.idmap.base"] == seen["config"]["volatile.idmap.base"]
    assert "" == alone
    assert f"{second} of project pikaci" == await Neighbours().find_same_ids(
        lab.incus, first, config, daemon_secs=0
    )


async def test_a_guest_without_a_map_of_its_own_says_so(lab: Lab) -> None:
    """It has the whole range, and is not what maps of their own are held against."""
    name = lab.name()
    await lab.create(name)

    assert "0" == (await lab.instance(name))["config"]["volatile.idmap.base"]
