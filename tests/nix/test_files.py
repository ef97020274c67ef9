"""Everything that is Nix can be read by Nix, and the examples of the docs do what they say."""

from __future__ import annotations

import re
import shlex
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


def _examples() -> tuple[str, str]:
    guest, host = re.findall(r"```nix\n(.*?)```", (ROOT / "docs/nixos.md").read_text(), re.DOTALL)
    return guest, host


def test_the_example_of_a_guest(nix: Nix) -> None:
    """An image of somebody's own: the packages of ours, and one more."""
    guest, _ = _examples()
    image = (
        "let pikaci = import ./tests/nix/stubs; nixpkgs.lib = import ./tests/nix/stubs/lib.nix; in"
        f" (({guest}).outputs {{ inherit nixpkgs pikaci; }}).nixosConfigurations.guest.config"
    )
    packages = nix.evaluate(f"map (p: p.name) ({image}).environment.systemPackages")

    assert {"sqlx-cli", "pikaci-incus-run", "cargo"} <= set(packages)
    assert "nixos-lxc-image" == nix.evaluate(f"({image}).system.build.squashfs.name")


def test_the_example_of_a_host(nix: Nix) -> None:
    """Its images are imported, its settings reach the service, and nothing is refused."""
    _, host = _examples()
    config = (
        "(import ./tests/nix/stubs/modules.nix {"
        f" modules = [ ({host}) ]; specialArgs.pikaci = import ./tests/nix/stubs; }}).config"
    )
    (command,) = nix.evaluate(f"{config}.systemd.services.pikaci-images.serviceConfig.ExecStart")
    served = nix.evaluate(f"{config}.systemd.services.pikaci.serviceConfig.ExecStart")

    assert [
        *("image", "import", "--alias", "pikaci/dev", "/stub/pikaci-metadata/metadata.tar.xz"),
        "/stub/nixos-lxc-image/nixos-lxc-image-x86_64-linux.squashfs",
    ] == shlex.split(command)[1:]
    assert "--jobs 8" in " ".join(shlex.split(served))
    assert all(one["assertion"] for one in nix.evaluate(f"{config}.assertions"))


def test_without_nix_and_without_root_set_up_says_so(tmp_path: Path) -> None:
    """And it goes on: the tests that need Nix are skipped."""
    for name in ("bash", "dirname", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)

    done = subprocess.run(
        ["bash", ".ci/nix"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )

    assert 0 == done.returncode, done.stderr
    assert "SKIPPED" in done.stdout
