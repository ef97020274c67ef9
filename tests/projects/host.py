"""Runs a project's tests on this machine, without pikaci, to compare."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.projects.fetch import cache_directory
from tests.projects.project import Project

SECS = 900


def run_on_host(project: Project, sources: Path, home: Path) -> str | None:
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
        tools = home / "tools"
        make = f"{python} -m venv {tools} && {tools}/bin/pip install --quiet uv"
        subprocess.run(["bash", "-c", make], env=env, check=True, timeout=SECS)
        env |= {"PATH": f"{tools}/bin:{env['PATH']}", "UV_PYTHON": python}
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
