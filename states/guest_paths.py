"""Paths of the guest: those that belong to it, and where a job may have something of its own."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from states.errors import SpecError

SNAPSHOT_PATH = "/workspace/snapshot"
# Guest paths: a user's mount may neither cover one nor lie below one.
RESERVED_PATHS = (
    "/artifacts",
    "/bin",
    "/cargo-home",
    "/cargo-target",
    "/dev",
    "/etc",
    "/home/pikaci",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/staged/linux-rust/workspace-build",
    "/staged/linux-rust/workspace-deps",
    "/mnt/pikaci-certificates",
    "/mnt/pikaci-nix-store",
    "/sys",
    "/tmp",
    "/usr",
    "/var/lib/pikaci-incus-run",
    SNAPSHOT_PATH,
)
ARTIFACTS = "/artifacts"


def check_guest_path(key: str, written: str, example: str) -> Iterator[SpecError]:
    """What is wrong with a guest path of the user's own."""
    path = written.rstrip("/")
    reserved = [one for one in RESERVED_PATHS if covers(one, path) or covers(path, one)]
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path:
        yield SpecError(
            key,
            f"{written!r} is not a plain absolute path",
            allowed="an absolute guest path without `.`, `..` or empty parts",
        )
    elif reserved:
        yield SpecError(
            key,
            f"{written!r} collides with {reserved[0]}, which belongs to the guest",
            allowed=f"a path of your own, for example {example}",
        )


def covers(parent: str, path: str) -> bool:
    """Whether `path` is `parent` or lies below it."""
    return path == parent or path.startswith(f"{parent}/")
