"""Everything that is Nix can be read by Nix."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .evaluation import ROOT, Nix

FILES = sorted(
    path.relative_to(ROOT)
    for path in (
        ROOT / "flake.nix",
        *(ROOT / "nix").rglob("*.nix"),
        *(ROOT / "tests").rglob("*.nix"),
    )
)
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if "```nix" in path.read_text()
)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_nix_file_parses(nix: Nix, path: Path) -> None:
    """Without a syntax error, or a name that nothing binds."""
    nix.parse((ROOT / path).read_text())


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_nix_in_the_docs_parses(nix: Nix, path: Path) -> None:
    """Whoever copies a block from a page has Nix."""
    blocks = re.findall(r"```nix\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)

    assert blocks
    for block in blocks:
        nix.parse(block)


def test_pages_with_nix_are_found() -> None:
    """The test above looks at something."""
    assert Path("docs/nixos.md") in PAGES


def test_without_nix_and_without_root_set_up_says_so(tmp_path: Path) -> None:
    """And it goes on: the tests that need Nix are skipped."""
    for name in ("bash", "dirname", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)

    done = subprocess.run(
        ["bash", ".ci/nix"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert 0 == done.returncode, done.stderr
    assert "NOT tested" in done.stdout
