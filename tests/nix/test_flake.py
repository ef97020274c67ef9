"""The flake's outputs, as far as they go without nixpkgs, and its lock."""

from __future__ import annotations

import ast
import builtins
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .evaluation import ROOT, Nix

FLAKE = "import ./tests/nix/stubs"
SYSTEMS = ["aarch64-linux", "x86_64-linux"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _names(nix: Nix, output: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = nix.evaluate(
        f"builtins.mapAttrs (_: builtins.attrNames) ({FLAKE}).{output}"
    )
    return names


def test_there_is_the_same_for_both_systems(nix: Nix) -> None:
    """Packages, checks, a shell for who works on it, and the program."""
    packages = [
        "default",
        "incus-container-image",
        "incus-container-metadata",
        "incus-run",
        "incus-vm-image",
        "incus-vm-metadata",
        "pikaci",
    ]
    checks = ["guest", "host", "incus-run", "pikaci", "runner", "shellcheck"]

    assert dict.fromkeys(SYSTEMS, packages) == _names(nix, "packages")
    assert dict.fromkeys(SYSTEMS, checks) == _names(nix, "checks")
    assert {system: ["default"] for system in SYSTEMS} == _names(nix, "devShells")
    assert {system: ["default"] for system in SYSTEMS} == _names(nix, "apps")
    assert SYSTEMS == nix.evaluate(f"builtins.attrNames ({FLAKE}).formatter")


def test_the_packages_are_what_the_images_build(nix: Nix) -> None:
    """Of the kind and the system that the name says."""
    packages = nix.evaluate(f"builtins.mapAttrs (_: p: p.name) ({FLAKE}).packages.aarch64-linux")

    assert {
        "default": "pikaci",
        "incus-container-image": "nixos-lxc-image",
        "incus-container-metadata": "pikaci-metadata",
        "incus-run": "pikaci-incus-run",
        "incus-vm-image": "nixos.qcow2",
        "incus-vm-metadata": "pikaci-metadata",
        "pikaci": "pikaci",
    } == packages
    assert sorted(
        f"incus-{kind}-{system}" for kind in ("container", "vm") for system in SYSTEMS
    ) == (nix.evaluate(f"builtins.attrNames ({FLAKE}).nixosConfigurations"))


def test_the_modules_are_files(nix: Nix) -> None:
    """As paths, so that importing one twice is importing it once."""
    modules = nix.evaluate(f"builtins.mapAttrs (_: toString) ({FLAKE}).nixosModules")

    assert {"default", "guest", "incus-container", "incus-vm"} == modules.keys()
    assert all(Path(module).is_file() for module in modules.values())


def test_the_lock_is_the_pinned_nixpkgs() -> None:
    """And it locks what the flake asks for."""
    lock = json.loads((ROOT / "flake.lock").read_text())
    node = lock["nodes"]["nixpkgs"]

    assert {
        "lastModified": 1785692966,
        "narHash": "sha256-vUfIeBEfpbAfZ5zjgIkYk7eHBeVfCYVjLbWnMkseYnk=",
        "owner": "NixOS",
        "repo": "nixpkgs",
        "rev": "643809054d65fdd466a63e3155b8c498cb483c04",
        "type": "github",
    } == node["locked"]
    assert {"root": {"inputs": {"nixpkgs": "nixpkgs"}}, "nixpkgs": node} == lock["nodes"]
    original = node["original"]
    url = f"{original['type']}:{original['owner']}/{original['repo']}/{original['ref']}"
    assert f'inputs.nixpkgs.url = "{url}";' in (ROOT / "flake.nix").read_text()


def test_pikaci_is_packaged_with_what_it_wants(nix: Nix) -> None:
    """Every dependency of pyproject.toml and of the extra `service`, and no other."""
    package = nix.evaluate(
        f"let p = ({FLAKE}).packages.x86_64-linux.pikaci.arguments; in"
        " { inherit (p) pname version; wants = map (d: d.name) p.dependencies;"
        " build = map (d: d.name) p.build-system; wrapper = p.makeWrapperArgs; source = map toString p.src.fileset; }"
    )
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["service"]

    assert (PROJECT["name"], PROJECT["version"]) == (package["pname"], package["version"])
    assert sorted({re.match("[a-z0-9-]+", one)[0] for one in wanted}) == sorted(package["wants"])  # type: ignore[index]
    assert ["setuptools"] == package["build"]
    assert ["--suffix", "PATH", ":", "/stub/git/bin"] == package["wrapper"]


def test_the_shell_has_what_developers_need(nix: Nix) -> None:
    """Every package of the group `dev`, under whatever name nixpkgs has it; pikaci's own too."""
    shell = nix.evaluate(
        f"let s = ({FLAKE}).devShells.x86_64-linux.default.arguments; in"
        " { from = map (p: p.name) s.inputsFrom; has = map (p: p.name) s.packages;"
        " python = map (p: p.name) (builtins.head"
        ' (builtins.filter (p: p.name == "python3-env") s.packages)).arguments; }'
    )
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = {re.match("[a-z0-9-]+", one)[0] for one in groups["dev"]}  # type: ignore[index]

    assert ["pikaci"] == shell["from"]
    assert {name.removesuffix("-py") for name in wanted} <= {*shell["has"], *shell["python"]}
    assert {"git", "gnumake", "incus-client", "mmdebstrap", "nixfmt"} <= set(shell["has"])


def test_a_name_that_pythons_packages_lack_is_an_error(nix: Nix) -> None:
    """Not the program of that name for another Python, such as mypy, or none at all."""
    lacking = (
        'let pkgs = import ./tests/nix/stubs/pkgs.nix { system = "x86_64-linux"; };'
        " python3.withPackages = choose:"
        ' { arguments = choose (removeAttrs pkgs.python3Packages [ "mypy" ]); };'
        " in map (p: map (one: one.name) (p.arguments or [ ])) (pkgs.callPackage ./nix/shell.nix {"
        " pkgs = pkgs // { inherit python3; }; pikaci = null; }).arguments.packages"
    )

    assert "'mypy' missing" in nix.refusal(lacking)


def test_the_package_s_source_is_whole(nix: Nix, tmp_path: Path) -> None:
    """A wheel of what goes into it has the guest's files, through the link to nix/guest."""
    source: list[str] = nix.evaluate(
        f"map toString ({FLAKE}).packages.x86_64-linux.pikaci.arguments.src.fileset"
    )
    tree = tmp_path / "source"
    for path in map(Path, source):
        target = tree / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", path, target], check=True)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
            "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", tmp_path, tree,
        ],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], check=True, capture_output=True, text=True
    ).stdout

    for path in (ROOT / "nix/guest").iterdir():
        assert f"orchestrator/guest/{path.name} " in listed


@pytest.mark.parametrize("name", ["guest", "host", "runner"])
def test_the_vm_tests_are_python_with_the_machines_they_name(nix: Nix, name: str) -> None:
    """NixOS's driver gives each node by its name; nothing else is there that is not defined."""
    test = f"({FLAKE}).checks.x86_64-linux.{name}.arguments"
    nodes = nix.evaluate(f"builtins.attrNames {test}.nodes")
    script = nix.evaluate(f"{test}.testScript")
    tree = ast.parse(script)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    defined |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    defined |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }

    assert {node.id for node in names} - defined - set(dir(builtins)) <= {*nodes, "subtest"}
    assert set(nodes) <= {node.id for node in names}
