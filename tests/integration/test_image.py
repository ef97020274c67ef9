"""Guest images on the real Incus: found, replaced without a gap, and judged."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
import trio

from orchestrator.image.check import check_image
from orchestrator.image.store import (
    ImageMissing,
    WrongContract,
    find_image,
    import_image,
    list_images,
)
from orchestrator.incus import Incus
from orchestrator.plan import Host
from orchestrator.settings import open_incus
from orchestrator.setup import DEV_IMAGE, setup

pytestmark = pytest.mark.incus
ALIAS = f"test/image-{os.getpid()}"


def image_file(base: Path, mark: str, **properties: str) -> Path:
    """An image that boots nothing: enough to be imported."""
    path = base / f"{mark}.tar"
    metadata = {
        "architecture": os.uname().machine,
        "creation_date": 1,
        "properties": {"description": mark, **properties},
    }
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("metadata.yaml", msgspec.json.encode(metadata)),
            ("rootfs/mark", mark.encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
async def incus() -> AsyncIterator[Incus]:
    """The daemon; images of the test's alias are gone afterwards."""
    daemon = open_incus()
    yield daemon
    for image in await list_images(daemon):
        if image.has_alias(ALIAS):
            await daemon.run("image", "delete", daemon.name(image.fingerprint), deadline_secs=60)


async def test_an_image_takes_the_place_of_another_without_a_gap(
    incus: Incus, tmp_path: Path
) -> None:
    """While it is replaced again and again, the alias always names an image; old ones go."""
    path = f"local:/1.0/images/aliases/{quote(ALIAS, safe='')}?project={incus.project}"
    first = await import_image(incus, image_file(tmp_path, "0"), ALIAS)
    looks = 0

    async with trio.open_nursery() as nursery:

        async def look() -> None:
            nonlocal looks
            while True:
                await incus.run_global("query", path, deadline_secs=30)
                looks += 1

        nursery.start_soon(look)
        for mark in "123":
            last = await import_image(incus, image_file(tmp_path, mark), ALIAS)
        nursery.cancel_scope.cancel()

    ours = [image for image in await list_images(incus) if image.has_alias(ALIAS)]
    assert [last] == [image.fingerprint for image in ours]
    assert looks > 3
    assert all(image.fingerprint != first for image in await list_images(incus))


async def test_the_same_image_again_changes_nothing(incus: Incus, tmp_path: Path) -> None:
    """An import of what is there is no error."""
    file = image_file(tmp_path, "same")

    assert await import_image(incus, file, ALIAS) == await import_image(incus, file, ALIAS)


async def test_a_missing_image_and_a_wrong_contract_say_what_to_type(
    incus: Incus, tmp_path: Path
) -> None:
    """Alias, project, host, both versions, and the command."""
    await import_image(incus, image_file(tmp_path, "v9", **{"pikaci.contract": "9"}), ALIAS)

    with pytest.raises(ImageMissing, match=r"no/such in project pikaci of local") as missing:
        await find_image(incus, "no/such")
    with pytest.raises(WrongContract, match=r"contract 9;.*version 1") as wrong:
        await find_image(incus, ALIAS)

    assert "pikaci image build" in missing.value.resolution
    assert "pikaci image check" in wrong.value.resolution


async def test_our_image_keeps_the_contract(incus: Incus) -> None:
    """Every row; and a guest of it never stays."""
    owner = f"test-{os.getpid()}"
    rows = [row async for row in check_image(incus, Host(), DEV_IMAGE, owner=owner)]

    assert [] == [row for row in rows if not row.kept]
    assert 15 < len(rows)
    ours = f"user.pikaci.owner={owner}"
    left = await incus.run("list", ours, "--format", "csv", "-c", "n", deadline_secs=30)
    assert b"" == left.stdout


async def test_a_broken_image_is_told_by_its_row(incus: Incus, tmp_path: Path) -> None:
    """An image whose runner is not there, and whose property lies."""
    image = next(i for i in await list_images(incus) if i.has_alias(DEV_IMAGE))
    exported = tmp_path / "image"
    await incus.run(
        "image", "export", incus.name(image.fingerprint), str(exported), deadline_secs=300
    )
    (file,) = tmp_path.glob("image*")
    _append(file, "rootfs/usr/lib/pikaci/pikaci-incus-run", b"#!/bin/sh\nexit 0\n", 0o644)
    await import_image(incus, file, ALIAS)

    rows = [row async for row in check_image(incus, Host(), ALIAS)]

    broken = [row for row in rows if not row.kept]
    assert 1 == len(broken)
    assert "pikaci-incus-run" in broken[0].subject
    assert "the runner" in broken[0].found


def _append(file: Path, name: str, content: bytes, mode: int) -> None:
    with tarfile.open(file, "a") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), mode
        archive.addfile(info, io.BytesIO(content))


async def test_a_second_setup_makes_nothing(incus: Incus) -> None:
    """Everything is there, so nothing is said and nothing changed."""
    said: list[str] = []

    assert not await setup(incus, Host(), say=said.append)
    assert [] == said
