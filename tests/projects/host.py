"""Runs a project's tests on this machine, without pikaci, to compare."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.projects.fetch import cache_directory
from tests.projects.project import Project

SECS = 900


def run_on_host(project: Project, sources: Path) -> str | None:
    """What the tests print; None if this machine lacks what they need."""
    if any(shutil.which(command) is None for command in project.needs):
        return None
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "PYTHON", "PIKACI_", "VIRTUAL_ENV", "COV_"))
    }
    env |= {"TERM": "dumb", "CI": "true", "UV_CACHE_DIR": str(cache_directory() / "uv")}
    if "uv " in project.host:
        python = os.path.realpath(sys.executable)
        env |= {"PATH": f"{_uv(cache_directory(), env)}:{env['PATH']}", "UV_PYTHON": python}
    done = subprocess.run(
        ["bash", "-e", "-c", project.host],
        cwd=sources,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=SECS,
    )
    return done.stdout


def _uv(cache: Path, env: dict[str, str]) -> Path:
    """The directory of the command uv, which is installed if the cache does not have it."""
    tools = cache / "tools"
    if not tools.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            new = Path(scratch) / "tools"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(new), "uv"]
            subprocess.run(pip, env=env, check=True, timeout=SECS)
            with suppress(OSError):  # another worker was faster
                new.rename(tools)
    return tools / "bin"
