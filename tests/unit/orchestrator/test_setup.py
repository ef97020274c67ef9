"""Set-up and doctor on the fake Incus, and what they make of what they find."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.host.doctor import examine, subordinate_ids
from orchestrator.host.setup import ensure_image
from orchestrator.image.debian import NotDebian
from orchestrator.image.store import ImageMissing, find_image
from orchestrator.incus import Host, Incus
from orchestrator.incus.errors import LeftByEarlierDaemon, ProjectNotFound, classify
from orchestrator.state_root import StateRoot
from tests.unit.orchestrator.fake_host import Host as FakeHost

IMAGE = "pikaci/dev"


async def test_an_image_of_other_making_is_left_alone(host: FakeHost) -> None:
    """It has our contract and no recipe of ours: whoever put it there meant it."""
    before = await find_image(host.incus, IMAGE)

    assert not await ensure_image(host.incus, say=print)
    assert before == await find_image(host.incus, IMAGE)


async def test_a_machine_that_builds_none_keeps_an_image_of_ours(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It was built elsewhere, so its recipe cannot be compared."""
    host.fake.store.image("pikaci", IMAGE).properties["pikaci.recipe"] = "elsewhere"
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "fedora"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert not await ensure_image(host.incus, say=print)
    host.fake.store.image("pikaci", IMAGE).properties["pikaci.contract"] = "9"
    with pytest.raises(NotDebian):
        await ensure_image(host.incus, say=print)


async def test_an_image_in_no_project(host: FakeHost, tmp_path: Path) -> None:
    """Before any set-up: the image, project and host are named, and the command."""
    elsewhere = Incus(tmp_path / "conf", project="none", spawn=host.fake)

    with pytest.raises(ImageMissing, match="no image pikaci/dev.* no project none of local") as e:
        await find_image(elsewhere, IMAGE)

    assert "pikaci setup" in e.value.resolution


async def test_doctor_tells_what_is_missing(host: FakeHost, tmp_path: Path) -> None:
    """Project, pool and image of another name are missing, each with what to type."""
    root = StateRoot(tmp_path / "state")
    well = [row async for row in examine(host.incus, Host(), root)]
    other = Incus(tmp_path / "conf", project="none", spawn=host.fake)
    ill = [row async for row in examine(other, Host(project="none", pool="none"), root)]

    assert [] == [row for row in well if row.state == "missing"]
    missing = {row.subject: row for row in ill if row.state == "missing"}
    assert {"project", "storage pool", "guest image"} == set(missing)
    assert all("pikaci setup" in row.remedy for row in missing.values())
    assert not root.path.exists()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("root:1000000:65536\n", "ok"),
        ("0:1000000:65536\n", "ok"),
        ("root:1000000:1000\n", "missing"),
        ("somebody:1000000:65536\n", "missing"),
        ("", "missing"),
        (None, "ok"),  # without the file, Incus takes a range by itself
    ],
)
def test_subordinate_ids(text: str | None, state: str, tmp_path: Path) -> None:
    """The daemon's user needs a range that one guest fits into."""
    file = tmp_path / "subuid"
    if text is not None:
        file.write_text(text)

    row = subordinate_ids("root", {"uid": file})

    assert state == row.state
    assert ("--add-subuids" in row.remedy) == (state == "missing")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Failed to run: mkfs.btrfs: pikaci.img appears to contain an existing filesystem (btrfs)",
         LeftByEarlierDaemon),
        ('Storage pool directory "/x/storage-pools/pikaci" already exists', LeftByEarlierDaemon),
        ("Check if project has images: fetch project: Project not found", ProjectNotFound),
    ],
)  # fmt: skip
def test_what_incus_says_of_left_and_missing_things(said: str, kind: type[Exception]) -> None:
    """As seen on Incus 6.0.4."""
    assert kind is classify(f"Error: {said}")
