"""What `pikaci setup` and `doctor` make and read: on the fake, its program, a daemon."""

from __future__ import annotations

import json

import pytest

from orchestrator.incus.errors import IncusError, InstanceNotFound
from tests.calls import call
from tests.integration.lab import PROJECT, ROOT, SECS, Lab, on_the_program_too, said


async def test_server(lab: Lab) -> None:
    """A server says who it trusts, its version, and which storage it can make."""
    server = await lab.query("/1.0")
    drivers = [driver["Name"] for driver in server["environment"]["storage_supported_drivers"]]

    assert "trusted" == server["auth"]
    assert server["environment"]["server_clustered"] is False
    assert server["environment"]["server_version"].startswith("6.")
    assert {"dir", "btrfs"} <= set(drivers)


@on_the_program_too
async def test_machine(lab: Lab) -> None:
    """It tells its processors, and its memory in bytes."""
    resources = await lab.query("/1.0/resources")

    assert resources["cpu"]["total"] >= 1
    assert resources["memory"]["total"] > 1 << 28


async def test_limits_above_the_machine_s_are_taken(lab: Lab) -> None:
    """Whoever wants them refused must look for himself: the guest starts."""
    limits = {"limits.cpu": "1000", "limits.memory": "900TiB"}
    devices = {"root": {**ROOT, "size": "900TiB"}}
    name = await lab.started(config=limits, devices=devices)

    assert "Running" == (await lab.instance(name))["status"]


@on_the_program_too
async def test_pool(lab: Lab) -> None:
    """A pool has a driver and so much space in bytes; one is made, listed and deleted by name."""
    ours = await lab.query(f"/1.0/storage-pools/{ROOT['pool']}")
    space = (await lab.query(f"/1.0/storage-pools/{ROOT['pool']}/resources"))["space"]
    create = ("storage", "create", f"local:{lab.owner}", "dir")
    made = await call(lab.incus, *create, deadline_secs=SECS, in_project=False)
    try:
        pools = await lab.query("/1.0/storage-pools", recursion="1")
        with pytest.raises(IncusError) as error:
            await call(lab.incus, *create, deadline_secs=SECS, in_project=False)
    finally:
        await call(
            lab.incus,
            "storage",
            "delete",
            f"local:{lab.owner}",
            deadline_secs=SECS,
            in_project=False,
        )

    assert (ROOT["pool"], "Created") == (ours["name"], ours["status"])
    assert 0 < space["used"] < space["total"]
    assert f"Storage pool {lab.owner} created\n".encode() == made.stdout
    assert "dir" in [pool["driver"] for pool in pools if pool["name"] == lab.owner]
    assert "The storage pool already exists: The record already exists" == said(error)
    with pytest.raises(IncusError, match="Storage pool not found"):
        await lab.query(f"/1.0/storage-pools/{lab.owner}")


async def test_project(lab: Lab) -> None:
    """A new project has a profile `default`, no image, and a name that none other can take."""
    create = ("project", "create", f"local:{lab.owner}", "--config", "features.images=true")
    made = await call(lab.incus, *create, deadline_secs=SECS, in_project=False)
    own = lab.in_project(lab.owner)
    try:
        with pytest.raises(IncusError) as error:
            await call(lab.incus, *create, deadline_secs=SECS, in_project=False)
        names = [one["name"] for one in await lab.query("/1.0/projects", recursion="1")]
        config = (await lab.query(f"/1.0/projects/{lab.owner}"))["config"]
        profiles = await lab.query("/1.0/profiles", recursion="1", project=lab.owner)
        images = await lab.query("/1.0/images", recursion="1", project=lab.owner)
        with pytest.raises(InstanceNotFound):
            await call(own, "delete", "local:none", deadline_secs=SECS)
    finally:
        await call(
            lab.incus,
            "project",
            "delete",
            f"local:{lab.owner}",
            deadline_secs=SECS,
            in_project=False,
        )

    assert f"Project {lab.owner} created\n".encode() == made.stdout
    assert "UNIQUE constraint failed: projects.name" in said(error)
    assert {PROJECT, lab.owner, "default"} <= set(names)
    assert ("true", "true") == (config["features.images"], config["features.profiles"])
    assert [("default", {}, {})] == [(x["name"], x["config"], x["devices"]) for x in profiles]
    assert [] == images
    with pytest.raises(IncusError, match="Project not found"):
        await lab.query(f"/1.0/projects/{lab.owner}")
    with pytest.raises(IncusError) as error:
        await call(
            lab.incus,
            "project",
            "delete",
            f"local:{lab.owner}",
            deadline_secs=SECS,
            in_project=False,
        )
    assert f'Fetch project "{lab.owner}": Project not found' == said(error)


async def test_project_in_use_stays(lab: Lab) -> None:
    """A project with anything in it cannot be deleted."""
    await lab.create(lab.name())
    with pytest.raises(IncusError) as error:
        await call(
            lab.incus, "project", "delete", f"local:{PROJECT}", deadline_secs=SECS, in_project=False
        )

    assert "Only empty projects can be removed." == said(error)


@on_the_program_too
async def test_profile(lab: Lab) -> None:
    """A profile is made from a document, and gives an instance its root disk."""
    document = json.dumps({"description": "ours", "devices": {"root": ROOT}}).encode()
    name = lab.name()
    create = ("profile", "create", f"local:{lab.owner}")
    await lab.run(*create, stdin=document)
    try:
        with pytest.raises(IncusError) as error:
            await lab.run(*create, stdin=document)
        profiles = await lab.query("/1.0/profiles", recursion="1")
        made = ("create", "--quiet", "--profile", lab.owner, "local:pikaci/dev", f"local:{name}")
        await lab.run(*made, stdin=b"{}")
        instance = await lab.instance(name)
    finally:
        await lab.clean_up()
        await lab.run("profile", "delete", f"local:{lab.owner}")
    (ours,) = [one for one in profiles if one["name"] == lab.owner]

    assert f'Error inserting "{lab.owner}" into database: The profile already exists' == said(error)
    assert ("ours", {"root": ROOT}) == (ours["description"], ours["devices"])
    assert ([lab.owner], {}) == (instance["profiles"], instance["devices"])
    assert {"root": ROOT} == instance["expanded_devices"]
    with pytest.raises(IncusError, match="Profile not found"):
        await lab.run("profile", "delete", f"local:{lab.owner}")
