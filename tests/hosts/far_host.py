"""A second host: an sshd with a user of its own, who may use Incus and is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.hosts.settings import FAR_SOCKET
from tests.integration.command import wait_until

SSHD = "/usr/sbin/sshd"
NAME = "build"
SECS = 60


class FarHost:
    """A host `build`, as `environment` names it to pikaci.

    `options` are lines of sshd_config that come first, and so count.
    """

    def __init__(self, base: Path, user: str, *, incus_socket: str = FAR_SOCKET) -> None:
        self.base = base
        self.user = user
        self.incus_socket = incus_socket
        self.home = base / "home"
        self.options: list[str] = []
        self.port = _free_port()
        self._sshd: subprocess.Popen[bytes] | None = None
        for name in ("hostkey", "key"):
            self._key(name)
        self._make_home()
        self._make_client()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which pikaci's commands use this host."""
        return {
            "PIKACI_HOSTS": str(self.base / "hosts.toml"),
            "PIKACI_HOST": NAME,
            "PATH": f"{self.base / 'bin'}:{os.environ['PATH']}",
        }

    @property
    def sshd(self) -> int:
        """The process that takes connections."""
        assert self._sshd is not None
        return self._sshd.pid

    @property
    def directory(self) -> Path:
        """pikaci's directory there."""
        return self.home / ".local/state/pikaci"

    def settings(self, **more: object) -> None:
        """Write the user's settings of the host, with other keys."""
        keys = {
            "ssh": f"{self.user}@127.0.0.1",
            "port": self.port,
            "identity": str(self.base / "key"),
            "socket": self.incus_socket,
            **more,
        }
        lines = (f"{key} = {value!r}" for key, value in keys.items() if value is not None)
        (self.base / "hosts.toml").write_text("\n".join((f"[hosts.{NAME}]", *lines, "")))

    def start(self) -> None:
        """Start sshd, and return when it takes connections."""
        (self.base / "sshd_config").write_text(
            "\n".join(
                (
                    *self.options,
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.base / 'hostkey'}",
                    "PidFile none",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "StrictModes no",
                    f"AuthorizedKeysFile {self.base / 'authorized_keys'}",
                    "",
                )
            )
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self._sshd = subprocess.Popen(
            [SSHD, "-D", "-f", str(self.base / "sshd_config"), "-E", str(self.base / "sshd.log")],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._listens)

    def restart(self, *options: str) -> None:
        """Start sshd anew, with other settings."""
        self.stop()
        self.options = list(options)
        self.start()

    def stop(self) -> None:
        """Stop sshd. Its connections live on."""
        if self._sshd is not None:
            self._sshd.kill()
            self._sshd.wait(SECS)
            self._sshd = None

    def connections(self) -> list[int]:
        """The processes of sshd that hold connections, two for each."""
        found: list[int] = []
        parents = [self._sshd.pid] if self._sshd is not None else []
        while parents:
            children = [pid for parent in parents for pid in _children(parent)]
            parents = [pid for pid in children if _name(pid) == "sshd"]
            found += parents
        return found

    def go_down(self) -> None:
        """Stop sshd, and break all connections."""
        held = self.connections()
        self.stop()
        for pid in held:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut(self) -> None:
        """Break all connections."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send the holders of the connections a signal."""
        for pid in self.connections():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _key(self, name: str) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.base / name)]
        subprocess.run(command, check=True, capture_output=True, timeout=SECS)

    def _make_home(self) -> None:
        owner = pwd.getpwnam(self.user)
        self.home.mkdir(mode=0o700)
        os.chown(self.home, owner.pw_uid, owner.pw_gid)
        shutil.copy(self.base / "key.pub", self.base / "authorized_keys")

    def _make_client(self) -> None:
        """An ssh here that knows the host's key, and has no settings of anybody."""
        kind, key, *_ = (self.base / "hostkey.pub").read_text().split()
        known = self.base / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        (self.base / "ssh_config").write_text(
            f"UserKnownHostsFile {known}\nGlobalKnownHostsFile /dev/null\nIdentityAgent none\n"
        )
        (self.base / "bin").mkdir()
        self.client()
        self.settings()

    def client(self, *options: str) -> None:
        """Make the ssh of pikaci's commands; these options of it win over theirs."""
        words = " ".join(f"-o {option}" for option in options)
        ssh = shutil.which("ssh")
        program = self.base / "bin/ssh"
        program.write_text(f'#!/bin/sh\nexec {ssh} -F {self.base / "ssh_config"} {words} "$@"\n')
        program.chmod(0o755)

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), SECS):
            return True
        return False


@contextmanager
def far_host(*, incus_socket: str = FAR_SOCKET, uid: int = 1000) -> Iterator[FarHost]:
    """A host with a new user in incus-admin; nothing of it is left after the block.

    By default it has the number of the job's user in guests, as the first user of a machine has.
    """
    with tempfile.TemporaryDirectory(prefix="pikaci-far-") as directory:
        base = Path(directory)
        base.chmod(0o755)
        user = f"pikaci-far-{os.getpid()}-{uid}"
        add = ["useradd", "--no-create-home", "--home-dir", str(base / "home")]
        # `*` is no password; without one the account is locked, and sshd lets nobody in.
        add += ["--uid", str(uid), "--non-unique", "--gid", "nogroup", "--shell", "/bin/bash"]
        add += ["--groups", "incus-admin", "--password", "*", user]
        subprocess.run(add, check=True, capture_output=True, timeout=SECS)
        try:
            host = FarHost(base, user, incus_socket=incus_socket)
            host.start()
            try:
                yield host
            finally:
                host.cut()
                host.stop()
        finally:
            # Another user may have this number, and processes.
            remove = ["userdel", "--force", user]
            subprocess.run(remove, check=True, capture_output=True, timeout=SECS)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
