"""The shorter lxcfs hooks: who gets them, and what `pikaci setup --fast-hooks` changes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.host import lxcfs
from orchestrator.host.lxcfs import OURS, THEIRS, hooks_row, install_hooks
from states.errors import PikaciError

GUEST = "pikaci_pikaci-0123"


@dataclass(frozen=True)
class Place:
    """A machine's directory of LXC configuration, and where its hook goes."""

    included: Path
    hook: Path

    def row(self) -> tuple[str, str]:
        row = hooks_row(self.included, self.hook)
        return ("", "") if row is None else (row.state, row.found)

    def install(self) -> bool:
        return install_hooks(self.included, self.hook)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    included = tmp_path / "common.conf.d"
    included.mkdir()
    (included / THEIRS).write_text("lxc.hook.mount = /usr/share/lxcfs/lxc.mount.hook\n")
    return Place(included, tmp_path / "libexec" / "hook")


def test_they_are_installed_once(place: Place) -> None:
    """Any user's container must be able to run the hook; nothing else is left."""
    before = place.row()

    assert [True, False] == [place.install(), place.install()]
    assert ("ok", "ok") == (before[0], place.row()[0])
    assert "0.5 s later" in before[1]
    assert 0o755 == place.hook.stat().st_mode & 0o777
    assert {THEIRS, OURS} == {file.name for file in place.included.iterdir()}


def test_an_older_version_of_ours_is_replaced(place: Place) -> None:
    place.install()
    text = place.hook.read_text()
    place.hook.write_text("#!/bin/sh\n")

    assert "0.5 s later" in place.row()[1]
    assert place.install()
    assert text == place.hook.read_text()


def test_a_hook_that_somebody_deleted_is_named(place: Place) -> None:
    """LXC would start no container without it."""
    place.install()
    place.hook.unlink()

    assert ("missing", f"{place.hook} is missing: no container starts") == place.row()
    assert place.install()


def test_without_lxcfs_there_is_nothing_to_shorten(place: Place) -> None:
    (place.included / THEIRS).unlink()

    assert ("", "") == place.row()
    with pytest.raises(PikaciError, match="no hooks of lxcfs"):
        place.install()
    assert not place.hook.exists()


def test_hooks_of_others_are_not_unset(place: Place) -> None:
    """Those of files that come after ours stay by themselves."""
    (place.included / "50-later.conf").write_text("lxc.hook.mount = /later\n")
    assert place.install()
    (place.included / "00-a.conf").write_text("lxc.hook.post-stop = /earlier\n")

    with pytest.raises(PikaciError, match=r"00-a\.conf sets hooks as well"):
        place.install()


def test_ours_comes_right_after_theirs() -> None:
    """In the order in which LXC includes files."""
    assert [THEIRS, OURS, "00-lxcfs.zz.conf"] == sorted([OURS, "00-lxcfs.zz.conf", THEIRS])


def run_hook(tmp_path: Path, **variables: str) -> str:
    """What the hook does on a machine where lxcfs's own hooks say that they run."""
    for name in ("mount", "reboot"):
        theirs = tmp_path / f"lxc.{name}.hook"
        theirs.write_text(f'#!/bin/sh\necho "their {name} $*"\n')
        theirs.chmod(0o755)
    script = lxcfs._SCRIPT.replace("/usr/share/lxcfs", str(tmp_path))
    env = {"PATH": os.environ["PATH"], **variables}
    command = ["sh", "-c", script, "hook", "a", "lxc", variables.get("LXC_HOOK_TYPE", "")]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["web", "apikaci-1", "other_web", "pikacix", ""])
def test_every_other_container_has_lxcfs_s_own(tmp_path: Path, name: str) -> None:
    stop = run_hook(tmp_path, LXC_NAME=name, LXC_HOOK_TYPE="post-stop")
    start = run_hook(tmp_path, LXC_NAME=name, LXC_HOOK_TYPE="mount")

    assert ["their reboot a lxc post-stop\n", "their mount a lxc mount\n"] == [stop, start]


@pytest.mark.parametrize("name", [GUEST, "pikaci-0123"])
def test_a_guest_stops_without_a_pause(tmp_path: Path, name: str) -> None:
    assert "" == run_hook(tmp_path, LXC_NAME=name, LXC_HOOK_TYPE="post-stop")


def test_without_a_cgroup_namespace_lxcfs_s_own_mounts(tmp_path: Path) -> None:
    """It has more to do there."""
    assert "their mount" in run_hook(tmp_path, LXC_NAME=GUEST, LXC_HOOK_TYPE="mount")


def test_without_lxcfs_s_own_hooks_nothing_is_done(tmp_path: Path) -> None:
    """lxcfs was removed, and ours was left."""
    script = lxcfs._SCRIPT.replace("/usr/share/lxcfs", str(tmp_path))
    env = {"PATH": os.environ["PATH"], "LXC_NAME": "web", "LXC_HOOK_TYPE": "mount"}

    assert 0 == subprocess.run(["sh", "-c", script], env=env).returncode
