"""Downloads sources with the clients that everybody uses, in the exact version, checked by hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from orchestrator.image.debian import debian_sources
from tests.projects.project import Project

SECS = 300


class WrongSources(Exception):
    """What was downloaded is not what `projects.toml` names."""


def cache_directory() -> Path:
    """Where downloads are kept; it is not in the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pikaci" / "test-projects"


def fetch(project: Project, cache: Path) -> Path:
    """The project's archive, downloaded if it is not in the cache. `WrongSources` if it differs."""
    kept = cache / f"{project.name}-{project.sha256}"
    if kept.exists() and _sha256(kept) == project.sha256:
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        into = Path(scratch) / "downloads"
        into.mkdir()
        _CLIENTS[project.client](project, into)
        archives = sorted(path for path in into.iterdir() if path.is_file())
        found = {_sha256(path): path for path in archives}
        if project.sha256 not in found:
            listed = ", ".join(f"{path.name} {sha}" for sha, path in found.items())
            raise WrongSources(f"{project.name} {project.version}: no file has the hash: {listed}")
        os.replace(found[project.sha256], kept)
    return kept


def unpack(archive: Path, target: Path) -> None:
    """Unpack an archive, without the directory that everything in it is in."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        with tarfile.open(archive) as opened:
            opened.extractall(scratch, filter="data")
        (top,) = Path(scratch).iterdir()
        shutil.move(top, target)


def _pip(project: Project, into: Path) -> None:
    what = f"{project.name}=={project.version}"
    flags = ("--no-deps", "--no-binary", project.name, "--disable-pip-version-check", "--quiet")
    _call(into, sys.executable, "-m", "pip", "download", *flags, what)


def _npm(project: Project, into: Path) -> None:
    _call(into, "npm", "pack", "--silent", f"{project.name}@{project.version}")


def _apt(project: Project, into: Path) -> None:
    """From where this machine gets its packages; its own lists stay as they are."""
    state = into.parent
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "cache" / "archives" / "partial").mkdir(parents=True)
    lines = [line.replace("deb ", "deb-src ", 1) for line in debian_sources().lines]
    (state / "sources.list").write_text("\n".join(lines) + "\n")
    settings = {
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ("apt-get", "-q", *(f"-o{key}={value}" for key, value in settings.items()))
    _call(into, *apt, "update")
    _call(
        into, *apt, "source", "--download-only", "--tar-only", f"{project.name}={project.version}"
    )


_CLIENTS: dict[str, Callable[[Project, Path], None]] = {"pip": _pip, "npm": _npm, "apt": _apt}


def _call(cwd: Path, *argv: str) -> None:
    done = subprocess.run(
        argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECS
    )
    if done.returncode:
        raise WrongSources(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr[-2000:]}")


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
