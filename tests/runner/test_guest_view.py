"""What the command sees: its user, its directories, its environment, its workspace."""

from __future__ import annotations

import os
import subprocess

import pytest

from .guest import CONTRACT, Guest

USER = CONTRACT["user"]
BOTH = pytest.mark.parametrize("root", [False, True], ids=["user", "root"])


def environment(output: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output.decode().split("\0") if line)


@BOTH
def test_environment(guest: Guest, root: bool) -> None:
    """The contract's variables, the same for both users but for HOME and the names."""
    ended = guest.run("env -0", root=root)

    seen = environment(ended.output)
    expected = {
        "HOME": "/root" if root else USER["home"],
        "USER": "root" if root else USER["name"],
        "LOGNAME": "root" if root else USER["name"],
        "CARGO_HOME": "/cargo-home",
        "CARGO_TARGET_DIR": "/cargo-target",
        "CARGO_INCREMENTAL": "0",
        "CARGO_TERM_COLOR": "never",
        "XDG_CACHE_HOME": "/cargo-home/xdg-cache",
        "XDG_STATE_HOME": "/artifacts/xdg-state",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "NIX_SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
        "LANG": "C.UTF-8",
    }
    assert expected == {name: seen[name] for name in expected}
    assert "/run/current-system/sw/bin" in seen["PATH"].split(":")
    assert not {"LC_ALL", CONTRACT["variables"]["staged_nix_store"]} & set(seen)


def test_job_may_choose(guest: Guest) -> None:
    """What the job's own environment says wins over the defaults."""
    ended = guest.run("env -0", send={"LANG": "C", "CARGO_HOME": "/tmp/c", "PATH": "/bin:/x"})

    seen = environment(ended.output)
    assert ("C", "/tmp/c", "/bin:/x") == (seen["LANG"], seen["CARGO_HOME"], seen["PATH"])


def test_staged_store(guest: Guest) -> None:
    """The staged store's variable is set when its directory is there."""
    store = "/mnt/pikaci-nix-store"
    guest.mkdir(store)

    ended = guest.run(f"printenv {CONTRACT['variables']['staged_nix_store']}")
    assert f"{store}\n".encode() == ended.output


@BOTH
def test_user_and_place(guest: Guest, root: bool) -> None:
    """Uid, gid, umask, working directory; stdin is empty."""
    ended = guest.run("id -u; id -g; umask; pwd; wc -c", root=root)

    ids = [0, 0] if root else [USER["uid"], USER["gid"]]
    expected = [*map(str, ids), "0022", "/workspace/snapshot", "0"]
    assert expected == ended.output.decode().split()


@BOTH
def test_writable_directories(guest: Guest, root: bool) -> None:
    """Every directory that the environment names can be written."""
    ended = guest.run(
        'for dir in "$HOME" "$CARGO_HOME" "$CARGO_TARGET_DIR" "$XDG_CACHE_HOME" "$XDG_STATE_HOME"'
        ' /artifacts; do echo x >"$dir/probe"; done',
        root=root,
    )

    assert (0, b"") == (ended.code, ended.output)


def test_owned_directories(guest: Guest) -> None:
    """A wrong owner is put right, and a right one is left alone."""
    wrong = guest.path("/cargo-home")
    os.chown(wrong, 4321, 4321)
    right = guest.path("/cargo-target")
    before = right.stat().st_ctime_ns
    ended = guest.run("true")

    assert b"" == ended.output
    assert (USER["uid"], USER["gid"]) == (wrong.stat().st_uid, wrong.stat().st_gid)
    assert before == right.stat().st_ctime_ns


def test_read_only_directory(guest: Guest) -> None:
    """A directory whose owner cannot be changed costs one warning in the log, and the job runs."""
    os.chown(guest.path("/cargo-target"), 4321, 4321)
    guest.shell("mount --bind /cargo-target /cargo-target; mount -o remount,bind,ro /cargo-target")
    ended = guest.run("echo ran")

    warning, rest = ended.output.split(b"\n", 1)
    assert warning.startswith(b"[pikaci] warning: /cargo-target is not owned by pikaci")
    assert b"Read-only file system" in warning
    assert b"ran\n" == rest
    assert 0 == ended.code


@pytest.fixture
def snapshot(guest: Guest) -> Guest:
    """A guest with a read-only snapshot of one file and one directory, owned by another user."""
    snapshot = guest.path("/workspace/snapshot")
    snapshot.joinpath("file").write_text("theirs\n")
    snapshot.joinpath("dir").mkdir()
    snapshot.joinpath("dir/file").write_text("theirs\n")
    for path in (snapshot, snapshot / "dir", snapshot / "dir/file", snapshot / "file"):
        os.chown(path, 4321, 4321)
    os.chown(snapshot / "dir", USER["uid"], USER["gid"])
    guest.shell("cd /workspace; mount --bind snapshot snapshot; mount -o remount,bind,ro snapshot")
    return guest


@BOTH
def test_hint(snapshot: Guest, root: bool) -> None:
    """A command that fails on the read-only workspace gets a hint that names the key."""
    ended = snapshot.run("touch new", root=root)

    assert ended.result is not None
    assert "failed" == ended.result["status"]
    assert "scratch = true" in ended.result["hint"]


@pytest.mark.parametrize("command", ["touch new || :", "exit 1"])
def test_no_hint(snapshot: Guest, command: str) -> None:
    """No hint for a command that passed, or that failed of something else."""
    ended = snapshot.run(command)

    assert ended.result is not None
    assert "hint" not in ended.result


@BOTH
def test_scratch(snapshot: Guest, root: bool) -> None:
    """With scratch the job can write its workspace; the snapshot itself does not change."""
    ended = snapshot.run(
        "cat file; echo mine >new; rm -r dir; mkdir dir; echo mine >dir/new; ls . dir; exit 1",
        root=root,
        send={"PIKACI_INCUS_SCRATCH": "1"},
    )

    expected = "theirs\n.:\ndir\nfile\nnew\n\ndir:\nnew\n"
    assert expected == ended.output.decode()
    assert 1 == ended.code
    assert ended.result is not None and "hint" not in ended.result
    lower = snapshot.path("/workspace/snapshot")
    assert ["dir", "file"] == sorted(path.name for path in lower.iterdir())
    assert ["file"] == [path.name for path in lower.joinpath("dir").iterdir()]


def test_scratch_that_cannot_be(snapshot: Guest) -> None:
    """A scratch overlay that cannot be mounted is an error of the guest, not a failed test."""
    layers = snapshot.mkdir(CONTRACT["private"] + "/scratch")
    layers.joinpath("work").write_text("in the way")
    ended = snapshot.run("echo ran", send={"PIKACI_INCUS_SCRATCH": "1"})

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)
    assert "scratch overlay" in ended.result["message"]
    assert b"ran\n" not in ended.output


def test_the_reason_why_scratch_cannot_be(snapshot: Guest) -> None:
    """Is what `mount` says of the overlay: its directories are there when it is tried alone."""
    snapshot.mkdir("/layers/a")
    snapshot.mkdir("/layers/b")
    snapshot.shell(
        # Two layers upon each other are as many as the kernel allows.
        "mount -t overlay -o lowerdir=/layers/a:/layers/b overlay /layers/a;"
        " mount -t overlay -o lowerdir=/layers/a:/layers/b overlay /workspace/snapshot"
    )
    ended = snapshot.run("echo ran", send={"PIKACI_INCUS_SCRATCH": "1"})

    assert ended.result is not None
    assert "scratch overlay" in ended.result["message"]
    assert b"wrong fs type" in ended.output
    assert b"ran\n" not in ended.output


def test_scratch_behind_a_link(snapshot: Guest) -> None:
    """A VM may have the snapshot's directory there: the kernel tells another path of the mount."""
    snapshot.shell("mv /workspace /elsewhere; ln -s elsewhere /workspace")
    ended = snapshot.run(
        "grep -c elsewhere/snapshot.*overlay /proc/self/mountinfo; touch new; ls",
        send={"PIKACI_INCUS_SCRATCH": "1"},
    )

    assert "1\ndir\nfile\nnew\n" == ended.output.decode()
    assert 0 == ended.code


@pytest.mark.parametrize("source", ["proc", "job-proc"])
def test_limits_in_proc(guest: Guest, source: str) -> None:
    """lxcfs's files stay visible. Here others stand for them.

    Within a job's own guest /proc is mounted from the name that `mount` then takes for its own.
    """
    runner = guest.path(CONTRACT["runner"])
    runner.write_text(runner.read_text().replace("fuse.lxcfs", "tmpfs"))
    guest.shell(
        f"mount -t proc {source} /proc; echo ours >/mnt/file;"
        " for name in cpuinfo sys/kernel/domainname; do mount --bind /mnt/file /proc/$name; done"
    )
    ended = guest.run("cat /proc/cpuinfo /proc/sys/kernel/domainname")

    assert b"ours\nours\n" == ended.output


def test_missing_workspace(guest: Guest) -> None:
    """Without the snapshot's directory nothing runs, and the result says why."""
    guest.path("/workspace/snapshot").rmdir()
    ended = guest.run("echo ran")

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)
    assert "/workspace/snapshot" in ended.result["message"]


def test_missing_user(guest: Guest) -> None:
    """A guest without the contract's user is an error of the guest, not a failed test."""
    guest.shell("echo root:x:0:0::/root:/bin/sh >/tmp/p; mount --bind /tmp/p /etc/passwd")
    ended = guest.run("echo ran")

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)
    assert "pikaci" in ended.result["message"]


def test_missing_users(guest: Guest) -> None:
    """The same without a list of users."""
    guest.shell("mount -t tmpfs tmpfs /etc")
    ended = guest.run("echo ran")

    assert ended.result is not None
    assert ("error", 125) == (ended.result["status"], ended.code)
    assert "no user" in ended.result["message"]


def test_as_the_body_of_another_script(guest: Guest) -> None:
    """The runner works as the body that NixOS wraps: a shebang, options and a PATH before it."""
    runner = guest.path(CONTRACT["runner"])
    options = "set -o errexit\nset -o nounset\nset -o pipefail\nexport PATH=/usr/bin:$PATH\n"
    guest.path("/opt/wrapped").write_text(f"#!/usr/bin/env bash\n{options}{runner.read_text()}")
    guest.path("/opt/wrapped").chmod(0o755)
    guest.shell(f"ln -sf /opt/wrapped {CONTRACT['runner']}")
    ended = guest.run("echo ran; exit 3")

    assert (3, b"ran\n") == (ended.code, ended.output)


@BOTH
def test_nested_namespaces(guest: Guest, root: bool) -> None:
    """A job may make user, PID and mount namespaces of its own, with their own /proc."""
    if subprocess.run(["unshare", "--user", "true"], check=False).returncode != 0:
        pytest.skip("this kernel gives nobody a user namespace")
    ended = guest.run("unshare -Urpf --mount-proc sh -c 'echo $$; id -u'", root=root)

    assert b"1\n0\n" == ended.output


def test_own_processes_only(guest: Guest) -> None:
    """The job sees its own processes alone: /proc is its namespace's."""
    ended = guest.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")

    assert b"supervise" not in ended.output
    assert b"cat /proc/" in ended.output
