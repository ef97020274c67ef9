"""Images and their aliases, as pikaci looks them up and replaces them: fake, program, daemon."""

from __future__ import annotations

import hashlib
import json
import secrets
import tarfile
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.incus.errors import (
    IncusError,
    InstanceNotFound,
    InstanceRunning,
)
from tests.integration.lab import IMAGE, Lab, on_the_program_too, said


def image_file(base: Path, **properties: str) -> Path:
    """The file of an image that has no more in it than it must have."""
    metadata = {"architecture": "x86_64", "creation_date": 1, "properties": properties}
    (base / "metadata.yaml").write_text(json.dumps(metadata))
    (base / "rootfs").mkdir(exist_ok=True)
    file = base / f"image-{secrets.token_hex(4)}.tar"
    with tarfile.open(file, "w") as archive:
        for name in ("metadata.yaml", "rootfs"):
            archive.add(base / name, name)
    return file


async def test_image_look_up(lab: Lab) -> None:
    """An image's aliases, fingerprint and contract are read in one query."""
    images = await lab.query("/1.0/images", recursion="1")
    (ours,) = [one for one in images if IMAGE in [alias["name"] for alias in one["aliases"]]]
    alias = await lab.query(f"/1.0/images/aliases/{IMAGE.replace('/', '%2F')}")
    by_fingerprint = await lab.query(f"/1.0/images/{ours['fingerprint']}")
    listed = json.loads((await lab.run("image", "list", "--format", "json")).stdout)

    assert "1" == ours["properties"]["pikaci.contract"]
    assert "container" == ours["type"]
    assert (IMAGE, ours["fingerprint"], "container") == (
        alias["name"],
        alias["target"],
        alias["type"],
    )
    assert ours["properties"] == by_fingerprint["properties"]
    assert ours["fingerprint"] in [one["fingerprint"] for one in listed]


async def test_missing_images(lab: Lab) -> None:
    """A missing image, alias or target has words of its own."""
    for path, words in {
        "/1.0/images/0000": 'Image "0000" not found',
        "/1.0/images/aliases/no-such": "Image alias not found",
    }.items():
        with pytest.raises(IncusError) as error:
            await lab.query(path)
        assert words == said(error)
    with pytest.raises(IncusError) as error:
        await lab.run("image", "delete", "local:no-such")
    assert "Image not found" == said(error)


@on_the_program_too
async def test_alias_moves_to_its_target(lab: Lab) -> None:
    """A new alias of an image can be set, set again, and deleted; the image stays."""
    target = (await lab.query(f"/1.0/images/aliases/{IMAGE}"))["target"]
    alias = f"{lab.owner}/alias"
    new = json.dumps({"name": alias, "target": target})
    path = f"/1.0/images/aliases/{alias}"
    try:
        await lab.query("/1.0/images/aliases", "--request", "POST", "--data", new)
        with pytest.raises(IncusError) as error:
            await lab.query("/1.0/images/aliases", "--request", "POST", "--data", new)
        assert f'Alias "{alias}" already exists' == said(error)
        await lab.query(path, "--request", "PUT", "--data", json.dumps({"target": target}))
        with pytest.raises(IncusError, match="Image not found"):
            await lab.query(path, "--request", "PUT", "--data", '{"target": "0000"}')
        assert target == (await lab.query(path))["target"]
    finally:
        await lab.query(path, "--request", "DELETE")
    with pytest.raises(IncusError, match="Image alias not found"):
        await lab.query(path, "--request", "DELETE")


async def test_alias_commands(lab: Lab) -> None:
    """`image alias` gives an image one more name, lists it, and takes it away."""
    fingerprint = (await lab.query(f"/1.0/images/aliases/{IMAGE}"))["target"]
    alias = f"local:{lab.owner}"
    create = ("image", "alias", "create", alias, fingerprint)
    await lab.run(*create)
    try:
        with pytest.raises(IncusError) as taken:
            await lab.run(*create)
        listed = json.loads((await lab.run("image", "alias", "list", "--format", "json")).stdout)
    finally:
        await lab.run("image", "alias", "delete", alias)
    with pytest.raises(IncusError) as gone:
        await lab.run("image", "alias", "delete", alias)

    assert f'Alias "{lab.owner}" already exists' == said(taken)
    assert fingerprint in [one["target"] for one in listed if one["name"] == lab.owner]
    assert "Image alias not found" == said(gone)


@on_the_program_too
async def test_import_moves_the_alias(lab: Lab, tmp_path: Path) -> None:
    """An image goes by the hash of its file; a later import under its alias leaves it nameless."""
    alias = f"{lab.owner}/new"
    files = [image_file(tmp_path, number=str(number)) for number in range(2)]
    fingerprints = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    try:
        for file in files:
            imported = ("image", "import", "--quiet", str(file), "local:", "--alias", alias)
            done = await lab.run(*imported)
            assert b"" == done.stdout
        with pytest.raises(IncusError) as error:
            await lab.run(*imported)
        assert "Image with same fingerprint already exists" == said(error)
        known = {one["fingerprint"]: one for one in await lab.query("/1.0/images", recursion="1")}
        first, second = (known[fingerprint] for fingerprint in fingerprints)

        assert [[], [alias]] == [[name["name"] for name in x["aliases"]] for x in (first, second)]
        assert ["0", "1"] == [one["properties"]["number"] for one in (first, second)]
        assert files[0].stat().st_size == first["size"]
        assert datetime.fromisoformat(second["uploaded_at"]).tzinfo is not None
    finally:
        for fingerprint in fingerprints:
            await lab.run("image", "delete", "--quiet", f"local:{fingerprint}")
    left = await lab.query("/1.0/images", recursion="1")
    assert not set(fingerprints) & {one["fingerprint"] for one in left}


async def test_import_refuses_what_is_no_image(lab: Lab, tmp_path: Path) -> None:
    """A file that is no archive, or has no metadata, is told apart."""
    (tmp_path / "junk").write_bytes(b"junk")
    with tarfile.open(tmp_path / "bare", "w") as archive:
        archive.add(tmp_path / "junk", "junk")
    for name, problem in {
        "junk": "Unsupported compression",
        "bare": "Metadata tarball is missing metadata.yaml",
    }.items():
        with pytest.raises(IncusError) as error:
            await lab.run("image", "import", "--quiet", str(tmp_path / name), "local:")
        assert problem == said(error)


@on_the_program_too
async def test_a_stopped_instance_becomes_an_image(lab: Lab) -> None:
    """With its files and the given properties, and with nothing of its config and devices."""
    name = await lab.started(config={"user.mine": "1"})
    await lab.exec(name, "sh", "-c", f"{lab.slim}echo kept > /usr/local/kept")
    properties = (f"made.by={lab.owner}", "description=x = y")
    publish = ("publish", "--quiet", "--compression", "none", f"local:{name}", "local:")
    with pytest.raises(InstanceRunning) as running:
        await lab.run(*publish, *properties)
    assert said(running).startswith("The instance is currently running")
    await lab.run("stop", "--quiet", "--force", f"local:{name}")
    fingerprints: list[str] = []
    try:
        for _ in range(2):
            await lab.run(*publish, *properties)
        images = [
            image
            for image in await lab.query("/1.0/images", recursion="1")
            if image["properties"].get("made.by") == lab.owner
        ]
        fingerprints = [image["fingerprint"] for image in images]
        # The time is part of an image: the same guest makes two.
        assert 2 == len(set(fingerprints))
        assert ([], "x = y", "1") == (
            images[0]["aliases"],
            images[0]["properties"]["description"],
            images[0]["properties"]["pikaci.contract"],
        )
        await lab.run("delete", "--quiet", f"local:{name}")
        copy = await lab.started(image=fingerprints[0])
        seen = await lab.exec(copy, "cat", "/usr/local/kept")
        config = (await lab.instance(copy))["config"]
    finally:
        for fingerprint in fingerprints:
            await lab.run("image", "delete", "--quiet", f"local:{fingerprint}")

    assert b"kept\n" == seen.stdout
    assert "user.mine" not in config
    # The image may be deleted while guests from it run.
    assert b"kept\n" == (await lab.exec(copy, "cat", "/usr/local/kept")).stdout


async def test_publishing_what_is_not_there(lab: Lab) -> None:
    """A missing instance is told as such."""
    with pytest.raises(InstanceNotFound):
        await lab.run("publish", "--quiet", f"local:{lab.name()}", "local:")
