"""A host that does not let us in: one clear error, at once, and nothing was submitted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.journal import open_journal
from tests.hosts.far_host import NAME, FarHost
from tests.integration.command import Command

pytestmark = pytest.mark.incus


def no_key(far: FarHost) -> None:
    (far.base / "authorized_keys").write_text("")


def another_key(far: FarHost) -> None:
    known = far.base / "known_hosts"
    (name, kind, _) = known.read_text().split()
    _, other, *_ = (far.base / "key.pub").read_text().split()
    known.write_text(f"{name} {kind} {other}\n")


def unknown_key(far: FarHost) -> None:
    (far.base / "known_hosts").write_text("")


def forbids_forwarding(far: FarHost) -> None:
    far.restart("AllowStreamLocalForwarding no")


def forbids_all_forwarding(far: FarHost) -> None:
    far.restart("DisableForwarding yes")


def no_rights(far: FarHost) -> None:
    subprocess.run(["gpasswd", "-d", far.user, "incus-admin"], check=True, capture_output=True)


def no_daemon(far: FarHost) -> None:
    far.settings(socket="/nonexistent/unix.socket")


def no_sshd(far: FarHost) -> None:
    far.stop()


def no_shell(far: FarHost) -> None:
    subprocess.run(["usermod", "--shell", "/usr/sbin/nologin", far.user], check=True)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (no_key, "refused the login"),
        (another_key, "has another key than the one that is known here"),
        (unknown_key, "has a key that is not known here"),
        (forbids_forwarding, "forbids the forwarding of Incus's socket"),
        (forbids_all_forwarding, "forbids the forwarding of Incus's socket"),
        (no_rights, "may not use Incus"),
        (no_daemon, "no Incus runs there"),
        (no_sshd, "Connection refused"),
        (no_shell, "This account is currently not available"),
    ],
)
def test_it_is_one_clear_error_and_nothing_was_submitted(
    far: FarHost, pikaci: Command, break_it: Callable[[FarHost], None], words: str
) -> None:
    break_it(far)

    done = pikaci("run", "--", "true")

    assert 4 == done.returncode, done
    first, *_, last = done.stderr.splitlines()
    assert NAME in first, done.stderr
    assert words in done.stderr
    assert last.startswith("  -> "), done.stderr
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        assert [] == journal.jobs()


def test_without_ssh_it_says_so(far: FarHost, pikaci: Command, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("incus", "git"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)

    done = pikaci("run", "--", "true", PATH=str(programs))

    assert 4 == done.returncode
    assert "ssh is not installed" in done.stderr


def test_a_host_that_nobody_named_is_a_mistake(far: FarHost, pikaci: Command) -> None:
    done = pikaci("run", "--host", "bulid", "--", "true")

    assert 2 == done.returncode
    assert "there is no host 'bulid' in" in done.stderr
    assert not pikaci.root.exists()


def test_the_local_host_needs_no_ssh(far: FarHost, pikaci: Command) -> None:
    """None is started, and wrong settings of other hosts do not matter."""
    (far.base / "bin/ssh").write_text(f"#!/bin/sh\ntouch {far.base / 'started'}\n")
    (far.base / "hosts.toml").write_text("nonsense")

    done = pikaci("run", "--host", "local", "--", "true")

    assert 0 == done.returncode, done.stderr
    assert not (far.base / "started").exists()
    assert 2 == pikaci("run", "--", "true").returncode


def test_a_directory_that_takes_no_trees_fails_the_job_with_the_reason(
    far: FarHost, pikaci: Command
) -> None:
    """A disk that is full, here one of 1 MiB."""
    (pikaci.workspace / "big").write_bytes(os.urandom(2 << 20))
    small = far.base / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "none", small], check=True)
    far.settings(directory=str(small / "pikaci"))
    try:
        done = pikaci("run", "--", "true")
        left = [path.name for path in (small / "pikaci/trees").glob("*/tree")]
    finally:
        subprocess.run(["umount", small], check=True)

    assert 4 == done.returncode, done
    assert "No space left on device" in done.stderr
    assert NAME in done.stderr
    assert [] == left


def test_paths_of_this_machine_are_refused_at_the_door(far: FarHost, pikaci: Command) -> None:
    """They would be paths of the host that runs the guest."""
    pikaci.write(
        'schema = 1\n[jobs.a]\ncommand = "true"\nnix_store = "/nix/store"\n'
        '[[jobs.a.mounts]]\nsource = "/srv"\npath = "/mnt/srv"\n'
    )

    done = pikaci("run")

    assert 2 == done.returncode
    assert "jobs.a.mounts[0].source" in done.stderr
    assert "jobs.a.nix_store" in done.stderr
    assert f"the host {NAME}" in done.stderr
    assert not pikaci.root.exists()
