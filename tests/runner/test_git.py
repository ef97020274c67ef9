"""A snapshot's `.git` belongs to neither of the guest's users, and git accepts it from both."""

from __future__ import annotations

import pytest

from .guest import Guest
from .test_names import own_etc

SHOW = "git config --system --get-all safe.directory; git rev-parse --show-toplevel"


def prepare(guest: Guest, gitconfig: str | None) -> None:
    """A snapshot with a repository, and this /etc/gitconfig."""
    make = f"printf '{gitconfig}' >gitconfig" if gitconfig is not None else "rm -f gitconfig"
    own_etc(guest, f"cp /etc/hosts hosts; {make}")
    guest.shell("cd /workspace/snapshot && git init -q && chown -R 1234:1234 .")


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
@pytest.mark.parametrize("gitconfig", [None, "[user]\\nname = x"], ids=["none", "other"])
def test_git_accepts_the_snapshot(guest: Guest, gitconfig: str | None, root: bool) -> None:
    """Whatever /etc/gitconfig has; that stays."""
    prepare(guest, gitconfig)
    ended = guest.run(f"{SHOW}; git config --system user.name || :", root=root)

    name = b"x\n" if gitconfig else b""
    assert b"/workspace/snapshot\n" * 2 + name == ended.output
    assert 0 == ended.code


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_a_read_only_gitconfig(guest: Guest, root: bool) -> None:
    """A copy is mounted over it; the image's own file is as it was."""
    prepare(guest, "[user]\\nname = x\\n")
    guest.shell("mount -o remount,bind,ro /etc")
    ended = guest.run(f"{SHOW}; git config --system user.name", root=root)
    assert b"/workspace/snapshot\n" * 2 + b"x\n" == ended.output


def test_without_a_repository_nothing_is_written(guest: Guest) -> None:
    own_etc(guest, "rm -f gitconfig")
    guest.run("true")
    assert not guest.path("/opt/etc/gitconfig").exists()


def test_a_gitconfig_that_cannot_be_written(guest: Guest) -> None:
    """Costs a warning, and the job runs."""
    prepare(guest, None)
    guest.shell("mount -o remount,bind,ro /etc")
    ended = guest.run("echo ran")

    assert b"[pikaci] warning: cannot add safe.directory to /etc/gitconfig" in ended.output
    assert ended.output.endswith(b"ran\n")
