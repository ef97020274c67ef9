"""What set-up does before pikaci is there: the scripts in .ci/."""

import platform
import subprocess
import sys
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
