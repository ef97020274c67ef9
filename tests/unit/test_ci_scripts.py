"""What set-up does before pikaci is there: the scripts in .ci/."""

import os
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ONE_LINE = """\
# deb http://mirror.test/comment {0} main
deb-src http://mirror.test/debian {0} main
deb http://mirror.test/debian-security {0}-security main
deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.test/debian {0} main contrib
"""
DEB822 = """\
Types: deb
URIs: http://mirror.test/debian-security
Suites: {0}-security
Components: main

Types: deb deb-src
URIs: http://mirror.test/debian
Suites: {0} {0}-updates
Components: main contrib
Signed-By: /keys/debian.gpg
"""


@pytest.fixture
def codename() -> str:
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian":
        pytest.skip("a guest image, and so backports, are for Debian")
    return release["VERSION_CODENAME"]


@pytest.mark.parametrize(
    ("file", "content", "options"),
    [
        ("sources.list", ONE_LINE, "arch=amd64 signed-by=/keys/debian.gpg"),
        ("sources.list.d/debian.sources", DEB822, "signed-by=/keys/debian.gpg"),
    ],
)
def test_backports_come_from_the_machine_s_own_source(
    tmp_path: Path, codename: str, file: str, content: str, options: str
) -> None:
    """Address and key of Debian's main suite are kept; suite and component are the backports'."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / file).write_text(content.format(codename))

    line = subprocess.run(
        [sys.executable, ".ci/backports.py", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert f"deb [{options}] http://mirror.test/debian {codename}-backports main\n" == line


@pytest.mark.incus
def test_where_incus_answers_its_set_up_is_silent() -> None:
    """Whoever has Incus is told nothing and asked for nothing."""
    done = subprocess.run([".ci/incus"], cwd=ROOT, check=False, capture_output=True, text=True)

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


COLLECT = """
import sys, pytest
from importlib.metadata import packages_distributions
names, paths = sys.argv[1].split(","), sys.argv[2].split(",")
for top, owners in packages_distributions().items():
    if not any(owner.lower() in (*names, "pikaci") for owner in owners):
        sys.modules[top] = None  # as if it were not installed
sys.exit(pytest.main(["--collect-only", "-q", "-c", "/dev/null", "--rootdir=.", "--noconftest", *paths]))
"""


def test_the_projects_own_job_finds_what_it_imports() -> None:
    """The guest has the packages of its lock, and no other; `make run` is the README's first line."""
    lock = (ROOT / ".ci/guest.lock").read_text()
    names = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    job = tomllib.loads((ROOT / "pikaci.toml").read_text())["jobs"]["states"]
    paths = re.findall(r"tests/\S+", job["command"])

    done = subprocess.run(
        [sys.executable, "-c", COLLECT, ",".join(names), ",".join(paths)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "HYPOTHESIS_NO_PLUGINS": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert 2 == len(paths)
    assert 0 == done.returncode, done.stdout
