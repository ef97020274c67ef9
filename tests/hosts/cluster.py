"""A real Incus cluster of three machines, each with its own pool.

The machines share one directory of the host, as members with a network file system do.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.hosts.machine import SECS, Bridge, Machine
from tests.integration.private_daemon import IMAGE, POOL, PROJECT

PORT = 8443


class Cluster:
    """Three members; `shared` is a directory that all of them see at the same path."""

    def __init__(self, base: Path, *, size: int = 3) -> None:
        self.shared = base / "shared"
        self.shared.mkdir(mode=0o711)
        self.bridge = Bridge()
        self.members = [
            Machine(f"m{n}", f"10.77.0.{n}", base / f"m{n}", self.bridge)
            for n in range(1, size + 1)
        ]

    def __getitem__(self, name: str) -> Machine:
        return next(member for member in self.members if member.name == name)

    def form(self) -> None:
        """Start all members, and join them."""
        first, *others = self.members
        for member in self.members:
            member.power_on()
            member.start()
        self._init(first)
        for member in others:
            token = first.incus("cluster", "add", "--quiet", member.name).strip()
            self._init(member, server_address=f"{member.address}:{PORT}", cluster_token=token)

    def set_up(self, image: Path) -> None:
        """A pool on each member, the project, and the image, unpacked everywhere."""
        first = self.members[0]
        for member in self.members:
            first.incus("storage", "create", POOL, "btrfs", "size=3GiB", f"--target={member.name}")
        first.incus("storage", "create", POOL, "btrfs")
        for member in self.members:
            pool = member.directory / "storage-pools" / POOL
            member.run("btrfs", "quota", "enable", "--simple", str(pool))
        features = ("--config=features.images=true", "--config=features.profiles=true")
        first.incus("project", "create", PROJECT, *features)
        first.incus("image", "import", "--project", PROJECT, str(image), f"--alias={IMAGE}")
        for member in self.members:
            options = ("--quiet", "--project", PROJECT, "--no-profiles", "--storage", POOL)
            first.incus("create", *options, f"--target={member.name}", IMAGE, "first")
            first.incus("delete", "--project", PROJECT, "first")

    def statuses(self) -> dict[str, str]:
        """What a living member says of each member: Online, Offline, Evacuated."""
        found = json.loads(self.members[0].incus("cluster", "list", "--format=json"))
        return {member["server_name"]: member["status"] for member in found}

    def instances(self, via: str = "m1") -> list[str]:
        """The names of all instances of the project."""
        return self[via].incus("list", "--project", PROJECT, "-f", "csv", "-c", "n").split()

    def bring_back(self, name: str) -> None:
        """Power a member on; return when all members are online for each other."""
        self[name].power_on()
        self[name].start()
        self._wait_until(name, "Online")

    def ask(self, verb: str, name: str) -> None:
        """Evacuate or restore a member.

        A restore fails when an instance that it would start is just being deleted.
        """
        for _ in range(5):
            with suppress(RuntimeError):
                self.members[0].incus("cluster", verb, "--force", name)
                return
        raise RuntimeError(f"{name}: {verb} fails again and again")

    def _wait_until(self, name: str, status: str) -> None:
        give_up, found = time.monotonic() + SECS, {}
        while found.get(name) != status:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{name} is not {status}: {found}")
            time.sleep(0.2)
            with suppress(RuntimeError):  # there may be no quorum yet
                found = self.statuses()

    def volumes(self) -> list[tuple[str, str]]:
        """The custom volumes of the project: (name, member)."""
        listed = self.members[0].incus(
            "storage", "volume", "list", POOL, "--project", PROJECT, "-f", "json", "type=custom"
        )
        return [(volume["name"], volume["location"]) for volume in json.loads(listed)]

    def remove(self) -> None:
        """All of it is gone, as in a power cut: nothing of it is outside its namespaces."""
        for member in self.members:
            member.power_off()
        self.bridge.remove()

    def _init(self, member: Machine, **joining: str) -> None:
        preseed = {
            "config": {} if joining else {"core.https_address": f"{member.address}:{PORT}"},
            "cluster": {"enabled": True, "server_name": member.name, **joining},
        }
        # On the machine itself: this command also talks to the member that it joins.
        member.run("incus", "admin", "init", "--preseed", stdin=json.dumps(preseed).encode())


@contextmanager
def three_members() -> Iterator[Cluster]:
    """A cluster that answers, with all that jobs need; nothing of it is left after the block."""
    # A guest's root is nobody here, and must get through; a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pikaci-cluster-") as directory:
        base = Path(directory)
        base.chmod(0o711)
        image = base / "image"
        export = ["incus", "image", "export", "--quiet", "--project", PROJECT, f"local:{IMAGE}"]
        subprocess.run([*export, str(image)], check=True, capture_output=True, timeout=SECS)
        made = Cluster(base)
        try:
            made.form()
            made.set_up(next(base.glob("image*")))
            yield made
        finally:
            made.remove()
