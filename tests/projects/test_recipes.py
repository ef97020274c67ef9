"""The recipes of docs/dependencies.md: each runs, and a second time only what makes nothing does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.projects.workspace import Workspace

PAGE = (Path(__file__).parents[2] / "docs" / "dependencies.md").read_text()
RECIPES = {
    part.partition("\n")[0]: found[1]
    for part in PAGE.split("\n## ")[1:]
    if (found := re.search(r"```toml\n(.*?)```", part, re.DOTALL))
}
_TEST = "import idna\n\n\ndef test_it() -> None:\n    assert idna.encode('a.example')\n"
_CMAKE = (
    "cmake_minimum_required(VERSION 3.13)\nproject(six CXX)\nadd_library(six six.cpp)\n"
    "install(TARGETS six)\ninstall(FILES six.h DESTINATION include)\n"
)
# What the workspace of each recipe has.
FILES = {
    "pip": {"requirements.txt": "idna\npytest\n", "test_it.py": _TEST},
    "uv": {
        "pyproject.toml": '[project]\nname = "it"\nversion = "1"\ndependencies = ["idna", "pytest"]\n',
        "test_it.py": _TEST,
    },
    "npm": {
        "package.json": '{"scripts": {"test": "node --test"}, "dependencies": {"isarray": "2.0.5"}}',
        "it.test.js": "require('node:assert')(require('isarray')([]))\n",
    },
    "cargo": {
        "Cargo.toml": '[package]\nname = "it"\nversion = "1.0.0"\n',
        "src/lib.rs": "#[test]\nfn it() { assert_eq!(6 * 7, 42) }\n",
    },
    "Go": {
        "go.mod": "module it\n\ngo 1.19\n",
        "it_test.go": 'package it\n\nimport "testing"\n\nfunc TestIt(t *testing.T) {}\n',
    },
    "apt": {},
    "C and C++": {
        "lib/CMakeLists.txt": _CMAKE,
        "lib/six.cpp": '#include "six.h"\nint six() { return 6; }\n',
        "lib/six.h": "int six();\n",
        "main.cpp": "#include <six.h>\nint main() { return six() - 6; }\n",
    },
    "I need .git": {"a": ""},
    "I need a network": {},
    "I need a database for my tests": {},
}
# What CI runs: they need nothing from outside.
SMALL = ("C and C++", "I need .git")

pytestmark = pytest.mark.incus


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in SMALL else [pytest.mark.projects]) for name in RECIPES],
)
def test_a_recipe_runs(name: str, workspace: Workspace) -> None:
    """As it is on the page."""
    workspace.directory.mkdir()
    for path, text in FILES[name].items():
        file = workspace.directory / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    _prepare(name, workspace.directory)
    (workspace.directory / "pikaci.toml").write_text(RECIPES[name])
    makers = {job for job, keys in tomllib.loads(RECIPES[name])["jobs"].items() if "output" in keys}

    first, second = workspace.run(), workspace.run()

    assert {} == first.not_passed | second.not_passed
    assert set() == first.reused
    assert makers == second.reused


def test_every_recipe_is_tried() -> None:
    """None of the page is left out."""
    assert set(FILES) == set(RECIPES)


def _prepare(name: str, directory: Path) -> None:
    if name == "npm":
        if shutil.which("npm") is None:
            pytest.skip("npm makes the lock file, and is not installed")
        lines = "npm install --silent --package-lock-only"
    elif name == "uv":
        tools = directory.parent / "tools"
        lines = f"{sys.executable} -m venv {tools} && {tools}/bin/pip install -q uv && {tools}/bin/uv lock -q"
    elif name == "I need .git":
        git = "git -c user.name=a -c user.email=a@example.org"
        lines = f"git init -q && git add a && {git} commit -qm a && {git} tag -a -m a v1.2"
    else:
        return
    subprocess.run(["bash", "-e", "-c", lines], cwd=directory, check=True, timeout=300)
