"""Where a user has put things: no home directory, and file systems that guests cannot mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.command import Command
from tests.integration.test_serve import stop

pytestmark = pytest.mark.incus

JOB = """
schema = 1
[jobs.good]
command = "echo fine"
memory = "512MiB"
"""
# Nobody can make a directory there, not even root.
NO_HOME = "/dev/null/home"


def test_a_state_root_is_enough(pikaci: Command) -> None:
    """With one, there need be no home directory, and every command works."""
    pikaci.write(JOB)

    for words in ("doctor", "run --dry-run"):
        assert 0 == pikaci(*words.split(), HOME=NO_HOME, XDG_STATE_HOME="").returncode
        assert not pikaci.root.exists()
    for words in ("run", "status", "logs good", "rerun", "resume", "reap", "gc"):
        done = pikaci(*words.split(), HOME=NO_HOME, XDG_STATE_HOME="")
        assert (0, "") == (done.returncode, done.stderr), words


def test_nothing_is_written_outside_a_state_root(pikaci: Command, tmp_path: Path) -> None:
    """Not even by a service; what is temporary is gone again."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    pikaci.write(JOB)
    pikaci.env |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    pikaci.env |= {"XDG_STATE_HOME": "", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}

    assert 0 == pikaci("run").returncode
    service = pikaci.run_until("serving", "serve")
    try:
        assert 0 == pikaci("run").returncode
    finally:
        stop(service)

    assert [] == [*(tmp_path / "home").iterdir(), *(tmp_path / "tmp").iterdir()]


def test_without_a_home_and_a_state_root_a_line_says_what_to_name(pikaci: Command) -> None:
    """Not that incus is not installed."""
    pikaci.write(JOB)
    where = {"HOME": NO_HOME, "XDG_STATE_HOME": "", "PIKACI_STATE_ROOT": ""}

    run, doctor = pikaci("run", **where), pikaci("doctor", **where)

    assert 2 == run.returncode
    assert "name another with --state-root" in run.stderr
    assert "no directory for its configuration: /dev/null/home" in doctor.stdout


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory on overlayfs."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount an overlay")
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged):
        path.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this host has no overlayfs")
    yield merged
    subprocess.run(["umount", str(merged)], check=True)


def test_a_state_root_on_overlayfs_is_named(pikaci: Command, overlay: Path) -> None:
    """Before by doctor, and by the job's fault, instead of an ability that the system lacks."""
    pikaci.write(JOB)
    where = {"PIKACI_STATE_ROOT": str(overlay / "root")}

    doctor, run = pikaci("doctor", **where), pikaci("run", **where)

    told = f"{overlay / 'root'} is on overlay, which no container can mount"
    assert f"MISSING  state root     {told}" in doctor.stdout
    assert (4, 4) == (doctor.returncode, run.returncode)
    assert "cannot be mounted into a container: its file system (overlay)" in run.stdout
    assert "-> name a state root on another file system" in run.stdout


def test_a_mounted_directory_on_overlayfs_is_named(pikaci: Command, overlay: Path) -> None:
    """With its key in the job file."""
    (overlay / "data").mkdir()
    mount = f'mounts = [{{ source = "{overlay}/data", path = "/mnt/data" }}]'
    pikaci.write(f"{JOB}{mount}\n")

    doctor, run = pikaci("doctor"), pikaci("run")

    assert f"MISSING  mount          jobs.good.mounts[0].source: {overlay}/data is" in doctor.stdout
    assert (4, 4) == (doctor.returncode, run.returncode)
    assert f"{overlay}/data cannot be mounted into a container: its" in run.stdout
    assert "-> use a directory on another file system" in run.stdout
