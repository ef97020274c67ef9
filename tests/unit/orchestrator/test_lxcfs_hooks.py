"""The shorter lxcfs hook: who gets them, and what `pikaci setup --fast-stop` changes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.host import lxcfs
from orchestrator.host.lxcfs import OURS, THEIRS, install_hook, stop_row
from states.errors import PikaciError


@dataclass(frozen=True)
class Place:
    """A machine's directory of LXC configuration, and where its hook goes."""

    included: Path
    hook: Path

    def row(self) -> tuple[str, str]:
        row = stop_row(self.included, self.hook)
        return ("", "") if row is None else (row.state, row.found)

    def install(self) -> bool:
        return install_hook(self.included, self.hook)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    included = tmp_path / "common.conf.d"
    included.mkdir()
    (included / THEIRS).write_text("lxc.hook.post-stop = /usr/share/lxcfs/lxc.reboot.hook\n")
    return Place(included, tmp_path / "libexec" / "hook")


def test_it_is_installed_once(place: Place) -> None:
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
    """LXC would not run the hooks that come after it."""
    place.install()
    place.hook.unlink()

    assert ("missing", f"{place.hook} is missing: containers do not stop cleanly") == place.row()
    assert place.install()


def test_without_lxcfs_there_is_nothing_to_shorten(place: Place) -> None:
    (place.included / THEIRS).unlink()

    assert ("", "") == place.row()
    with pytest.raises(PikaciError, match="no hook of lxcfs"):
        place.install()
    assert not place.hook.exists()


def test_hooks_of_others_are_not_unset(place: Place) -> None:
    """Those of files that come after ours stay by themselves."""
    (place.included / "50-later.conf").write_text("lxc.hook.post-stop = /later\n")
    assert place.install()
    (place.included / "00-a.conf").write_text("lxc.hook.post-stop = /earlier\n")

    with pytest.raises(PikaciError, match=r"00-a\.conf sets another post-stop hook"):
        place.install()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "there is no hook of lxcfs"),
        ("lxc.hook.post-stop = /elsewhere/hook\n", r"00-lxcfs\.conf sets another post-stop hook"),
    ],
)
def test_another_hook_of_lxcfs_stays(place: Place, line: str, why: str) -> None:
    """Ours would run the one that Debian's lxcfs has."""
    (place.included / THEIRS).write_text(line)

    assert ("", "") == place.row()
    with pytest.raises(PikaciError, match=why):
        place.install()
    assert not place.hook.exists()


def test_comments_and_other_bytes_set_no_hook(place: Place) -> None:
    (place.included / "00-a.conf").write_bytes(b"# lxc.hook.post-stop = /a \xff\n")

    assert place.install()


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_others_can_run_the_hook_and_not_write_it(place: Place, umask: int) -> None:
    """Also a container of a user's own LXC runs it when it stops."""
    before = os.umask(umask)
    try:
        assert place.install()
    finally:
        os.umask(before)

    modes = [path.stat().st_mode & 0o777 for path in (place.hook.parent, place.hook)]
    assert [0o755, 0o755] == modes
    assert 0o644 == (place.included / OURS).stat().st_mode & 0o777


def test_what_cannot_be_written_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PikaciError, match="No space left"):
        place.install()
    assert [] == list(place.hook.parent.iterdir())


def test_a_file_that_doctor_cannot_read_is_not_ours(place: Place) -> None:
    place.install()
    (place.included / OURS).unlink()
    (place.included / OURS).mkdir()

    assert "0.5 s later" in place.row()[1]


def test_ours_comes_right_after_theirs() -> None:
    """In the order in which LXC includes files."""
    assert [THEIRS, OURS, "00-lxcfs.zz.conf"] == sorted([OURS, "00-lxcfs.zz.conf", THEIRS])


def run_hook(tmp_path: Path, name: str) -> str:
    """What the hook does on a machine where lxcfs's own hook says that it runs."""
    script = lxcfs._SCRIPT.replace("/usr/share/lxcfs", str(tmp_path))
    env = {"PATH": os.environ["PATH"], "LXC_NAME": name}
    command = ["sh", "-c", script, "hook", "argument"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    hook = tmp_path / "lxc.reboot.hook"
    hook.write_text('#!/bin/sh\necho "theirs $*"\n')
    hook.chmod(0o755)
    return hook


@pytest.mark.parametrize("name", ["web", "apikaci-1", "other_web", "pikacix", ""])
def test_every_other_container_has_lxcfs_s_own(tmp_path: Path, theirs: Path, name: str) -> None:
    assert "theirs argument\n" == run_hook(tmp_path, name)


@pytest.mark.parametrize("name", ["pikaci_pikaci-0123", "pikaci-0123"])
def test_a_guest_stops_without_a_pause(tmp_path: Path, theirs: Path, name: str) -> None:
    assert "" == run_hook(tmp_path, name)


def test_without_lxcfs_s_own_hook_nothing_is_done(tmp_path: Path) -> None:
    """lxcfs was removed, and ours was left."""
    assert "" == run_hook(tmp_path, "web")
