"""`localhost` and the guest's own name resolve, whatever the image's /etc/hosts has."""

from __future__ import annotations

import pytest

from .guest import Guest

OURS = {("127.0.0.1", "localhost"), ("::1", "localhost")}
SHOW = "cat /etc/hosts; echo ==; cat /proc/sys/kernel/hostname"


def own_etc(guest: Guest, hosts: str) -> None:
    """An /etc that can be written to; `hosts` are commands that make its file, in /etc."""
    # Files that are replaced, as by `useradd`, may vanish while they are copied.
    copy = "cp -a /etc /opt/etc || { rm -r /opt/etc; cp -a /etc /opt/etc; }"
    guest.shell(f"{copy}; cd /opt/etc; rm -f hosts; {hosts}; mount --bind . /etc")


def names(output: bytes) -> tuple[list[tuple[str, str]], str]:
    """Every pair of an address and a name in the job's /etc/hosts, and the guest's name."""
    hosts, _, name = output.decode().partition("==\n")
    lines = [line.partition("#")[0].split() for line in hosts.splitlines()]
    return [(line[0], name) for line in lines if line for name in line[1:]], name.strip()


HOSTS = {
    "none": "true",
    "empty": ": >hosts",
    "other": "printf '10.0.0.1 other # localhost' >hosts",
    "half": "printf '127.0.0.1\\tlocalhost\\n' >hosts",
    "link": "echo 10.0.0.1 other >/opt/store; ln -s /opt/store hosts",
    "dangling link": "ln -s /opt/nowhere hosts",
}


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
@pytest.mark.parametrize("hosts", HOSTS)
def test_names_are_added(guest: Guest, hosts: str, root: bool) -> None:
    """Both addresses of localhost and the guest's own name, once each; what was there stays."""
    own_etc(guest, HOSTS[hosts])
    ended = guest.run(SHOW, root=root)

    found, name = names(ended.output)
    assert OURS <= set(found)
    assert name in [known for _, known in found]
    assert len(found) == len(set(found))
    assert (("10.0.0.1", "other") in found) == (hosts in ("other", "link"))
    assert b"[pikaci]" not in ended.output


@pytest.mark.parametrize("link", [False, True], ids=["file", "link"])
def test_names_in_a_read_only_file(guest: Guest, link: bool) -> None:
    """Nor need the file or its directory be writable; the image's own file is as it was."""
    make = (
        "mkdir /opt/store; echo 10.0.0.1 other >/opt/store/hosts;"
        " mount --bind /opt/store /opt/store; mount -o remount,bind,ro /opt/store; "
    )
    own_etc(guest, make + ("ln -s /opt/store/hosts hosts" if link else "cp /opt/store/hosts hosts"))
    guest.shell("mount -o remount,bind,ro /etc")
    ended = guest.run(SHOW)

    found, name = names(ended.output)
    assert {*OURS, ("10.0.0.1", "other")} <= set(found)
    assert name in [known for _, known in found]
    guest.shell("umount $(realpath /etc/hosts)")
    assert "10.0.0.1 other\n" == guest.path("/opt/store/hosts").read_text()


def test_a_complete_file_is_left_alone(guest: Guest) -> None:
    """Its own addresses and order count."""
    text = "::1 localhost\\n127.0.0.1 localhost here\\n"
    own_etc(guest, f"printf '{text}10.0.0.1 %s\\n' $(cat /proc/sys/kernel/hostname) >hosts")
    before = guest.path("/opt/etc/hosts").stat()
    guest.run("true")
    after = guest.path("/opt/etc/hosts").stat()

    assert (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns)


def test_names_that_cannot_be_added(guest: Guest) -> None:
    """Cost a warning, and the job runs."""
    own_etc(guest, "mkdir hosts; touch hosts/x")
    ended = guest.run("echo ran")

    warning, rest = ended.output.split(b"\n", 1)
    assert warning.startswith(b"[pikaci] warning: cannot add localhost to /etc/hosts")
    assert (0, b"ran\n") == (ended.code, rest[-4:])
