"""What a warm guest relies on: one PATCH brings a guest that runs its disks, all or none.

The same tests against the fake, its program, and a daemon. Where they differ the real one is right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.incus.errors import IncusError, InstanceNotFound
from tests.integration.lab import Lab, disk, on_the_program_too, said


async def patch(lab: Lab, name: str, **body: Any) -> None:
    await lab.query(f"/1.0/instances/{name}", "-X", "PATCH", "-d", json.dumps(body))


def share(directory: Path, path: str) -> dict[str, str]:
    return disk(str(directory), path, readonly="true", shift="true")


@on_the_program_too
async def test_a_guest_that_runs_gets_its_disks(lab: Lab, tmp_path: Path) -> None:
    """When the call returns they are mounted, read-only; what was there before stays."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    guest = await lab.started()
    devices = {
        "pikaci-snapshot": share(tmp_path / "a", "/workspace/snapshot"),
        "pikaci-mount-0": share(tmp_path / "b", "/data/deep"),
    }
    body: dict[str, Any] = {
        "config": {"user.pikaci.job": "j"},
        "description": "d",
        "devices": devices,
    }
    await patch(lab, guest, **body)
    read = await lab.exec(guest, "cat", "/workspace/snapshot/file")
    written = await lab.exec(guest, "tee", "/data/deep/new", stdin=b"x")
    await patch(lab, guest, **body)  # a second time, when the first answer was lost
    again = await lab.exec(guest, "cat", "/data/deep/file")
    seen = await lab.instance(guest)

    assert (b"a", b"b") == (read.stdout, again.stdout)
    assert 1 == written.exit_code
    assert ("j", lab.owner) == (
        seen["config"]["user.pikaci.job"],
        seen["config"]["user.pikaci.owner"],
    )
    assert "d" == seen["description"]
    assert {"root", *devices} == set(seen["devices"])


@on_the_program_too
async def test_a_change_that_is_refused_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    """A source that is missing leaves the guest as it was, without the other disk too."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("a")
    guest = await lab.started()
    devices = {
        "pikaci-a": share(tmp_path / "a", "/workspace/snapshot"),
        "pikaci-b": share(tmp_path / "missing", "/data"),
    }
    with pytest.raises(IncusError) as error:
        await patch(lab, guest, config={"user.pikaci.job": "j"}, devices=devices)
    read = await lab.exec(guest, "cat", "/workspace/snapshot/file")
    seen = await lab.instance(guest)

    assert "Missing source path" in said(error)
    assert 1 == read.exit_code
    assert "user.pikaci.job" not in seen["config"]
    assert {"root"} == set(seen["devices"])


@on_the_program_too
async def test_a_stopped_guest_mounts_them_when_it_starts(lab: Lab, tmp_path: Path) -> None:
    """And says nothing before: whoever needs it to run must look."""
    (tmp_path / "file").write_text("here")
    guest = await lab.started()
    await lab.run("stop", "--quiet", "--force", f"local:{guest}")
    await patch(lab, guest, devices={"pikaci-snapshot": share(tmp_path, "/workspace/snapshot")})
    await lab.run("start", "--quiet", f"local:{guest}")
    read = await lab.exec(guest, "cat", "/workspace/snapshot/file")

    assert b"here" == read.stdout


async def test_a_guest_that_is_gone(lab: Lab) -> None:
    """It is told by its own type."""
    with pytest.raises(InstanceNotFound):
        await patch(lab, lab.name(), config={"user.pikaci.job": "j"})
