"""Runs the scripts for hosts on this machine, as sshd would: with a login shell, and a stdin."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from orchestrator.hosts import ssh_scripts
from orchestrator.hosts.far_shell import SHELL, Answer, Frame, framed
from orchestrator.hosts.manifest import difference, read_manifest
from orchestrator.hosts.pack import pack

SECS = 60


def run(script: str, data: bytes = b"", *, shell: str = "/bin/sh", before: bytes = b"") -> Answer:
    """The answer of a script that reads `data`; `before` is what start-up files print."""
    done = subprocess.run(
        [shell, "-c", SHELL],
        input=framed(script, "word", reads=True) + data,
        capture_output=True,
        timeout=SECS,
    )
    frame = Frame("word")
    for byte in before + done.stdout:
        frame.feed(bytes([byte]))
    assert frame.answer is not None, done
    return frame.answer


class Far:
    """pikaci's directory of a host."""

    def __init__(self, base: Path) -> None:
        self.directory = base / "far dir"

    @property
    def trees(self) -> Path:
        return self.directory / "trees"

    def ask(self, *names: str, bases: Iterable[str] = (), secs: float = 60) -> Answer:
        script = ssh_scripts.ask(str(self.directory), names, tuple(bases), lease_secs=secs)
        answer = run(script)
        assert 0 == answer.exit_code, answer
        return answer

    def send(self, tree: Path, name: str, *, word: str = "w", most: int | None = None) -> Answer:
        """Send a tree whole; only the first bytes, if `most` says so."""
        data = b"".join(pack(tree, read_manifest(tree)))[:most]
        return run(ssh_scripts.receive(str(self.directory), name, word, secs=60), data)

    def change(self, tree: Path, name: str, base: Path) -> tuple[Answer, bytes]:
        """Send what is different from the base; also what was sent."""
        found = difference(read_manifest(tree), read_manifest(base))
        data = b"".join(pack(tree, found.send))
        script = ssh_scripts.receive(
            str(self.directory), name, "w", secs=60, base=base.name, remove=found.remove
        )
        return run(script, data), data

    def sweep(self, *, idle: float = 0, dry_run: bool = False) -> list[str]:
        script = ssh_scripts.sweep(str(self.directory), "w", idle_secs=idle, dry_run=dry_run)
        answer = run(script)
        assert 0 == answer.exit_code, answer
        return answer.values("deleted")

    def expire(self) -> None:
        """End all leases now."""
        for lease in self.trees.glob("*/until-*"):
            lease.rename(lease.with_name("until-1"))

    def tree(self, name: str) -> Path:
        return self.trees / name / "tree"


def shown(tree: Path) -> dict[str, object]:
    """What a job can see of a tree: modes, links, bytes."""
    found: dict[str, object] = {}
    for path in [tree, *tree.rglob("*")]:
        name = str(path.relative_to(tree))
        mode = path.lstat().st_mode
        found[name] = (mode, path.readlink() if path.is_symlink() else None)
        if path.is_file() and not path.is_symlink():
            found[name] = (mode, path.read_bytes(), int(path.stat().st_mtime))
    return found
