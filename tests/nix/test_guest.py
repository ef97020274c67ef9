"""The guest module, evaluated whole, with stand-ins for nixpkgs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from orchestrator.contract import contract, guest_files

from .evaluation import ROOT, Nix, place_of

KINDS = ("vm", "container")
# What a Rust CI guest has, by the words of the project's beginning.
WANTED = set(
    "bash cacert cargo rustc clang gcc openssl git curl jq nodejs postgresql python3 nix util-linux".split()
)


def _config(nix: Nix, kind: str, what: str, system: str = "x86_64-linux") -> Any:
    image = f'(import ./tests/nix/stubs).nixosConfigurations."incus-{kind}-{system}"'
    return nix.evaluate(f"{image}.config.{what}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_directories_are_made_at_boot(nix: Nix, kind: str) -> None:
    """By the contract's own rules; scripts that say #!/bin/bash start."""
    bash, *rules = _config(nix, kind, "systemd.tmpfiles.rules")

    assert re.fullmatch(r"L\+ /bin/bash - - - - /\S+/bin/bash", bash)
    assert nix.evaluate("(import ./nix/contract.nix).tmpfilesRules") == rules


@pytest.mark.parametrize("kind", KINDS)
def test_the_user_is_the_contract_s(nix: Nix, kind: str) -> None:
    """Name, uid, group, gid and home."""
    users = _config(nix, kind, "users")
    user = contract().user

    assert {
        "isNormalUser": True,
        "uid": user.uid,
        "group": user.group,
        "home": user.home,
    } == users["users"][user.name]
    assert {"gid": user.gid} == users["groups"][user.group]


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_comes_in_but_by_the_host(nix: Nix, kind: str) -> None:
    """The empty password, the advice to use it and the sshd of nixpkgs's image modules are gone."""
    assert "!" == _config(nix, kind, "users.users.root.initialHashedPassword")
    assert "" == _config(nix, kind, "services.getty.helpLine")
    assert _config(nix, kind, "services.openssh.enable") is False


@pytest.mark.parametrize("kind", KINDS)
def test_the_packages_of_a_rust_ci_are_there(nix: Nix, kind: str) -> None:
    """With the runner among them, so that it stands where the host looks."""
    names = {package["name"] for package in _names(nix, kind)}

    assert WANTED <= names
    assert {"pkg-config", "pkg-config-unwrapped"} & names
    assert {"pikaci-incus-run", "pikaci-egress"} <= names


def _names(nix: Nix, kind: str) -> list[dict[str, str]]:
    image = f'(import ./tests/nix/stubs).nixosConfigurations."incus-{kind}-x86_64-linux"'
    packages: list[dict[str, str]] = nix.evaluate(
        f"map (package: {{ inherit (package) name; }}) {image}.config.environment.systemPackages"
    )
    return packages


@pytest.mark.parametrize("name", ["pikaci-ready", "pikaci-deadline"])
def test_the_services_are_those_of_other_systemd_guests(nix: Nix, name: str) -> None:
    """NixOS's options say what the unit files in nix/guest say, and start the same script."""
    unit = dict(
        line.partition("=")[::2]
        for line in (guest_files() / f"{name}.service").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    service = _config(nix, "vm", f"systemd.services.{name}")
    script = nix.evaluate(
        "(import ./tests/nix/stubs).nixosConfigurations.incus-vm-x86_64-linux.config"
        f".systemd.services.{name}.serviceConfig.ExecStart"
    )

    assert {
        "Description": service["description"],
        "After": " ".join(service["after"]),
        "WantedBy": " ".join(service["wantedBy"]),
        "StartLimitIntervalSec": str(service["startLimitIntervalSec"]),
        "Restart": service["serviceConfig"]["Restart"],
        "RestartSec": str(service["serviceConfig"]["RestartSec"]),
        "ExecStart": f"/usr/lib/pikaci/{name}",
    } == unit
    assert place_of(guest_files() / name) == script
    assert {"/stub/coreutils", "/stub/curl"} == set(service["path"])


def test_the_agent_outlives_what_its_jobs_do(nix: Nix) -> None:
    """A job that is killed for its memory takes nothing else along."""
    agent = _config(nix, "vm", "systemd.services.incus-agent.serviceConfig")

    assert ("continue", "process") == (agent["OOMPolicy"], agent["KillMode"])


def test_nix_builds_where_its_sandbox_cannot_be(nix: Nix) -> None:
    """In a container; a VM's kernel has nothing against a sandbox."""
    assert _config(nix, "container", "nix.settings")["sandbox-fallback"] is True
    assert "sandbox-fallback" not in _config(nix, "vm", "nix.settings")


@pytest.mark.parametrize("kind", KINDS)
def test_a_nic_of_incus_gets_its_address(nix: Nix, kind: str) -> None:
    """By networkd alone, under the name that a VM or a container gives it."""
    network = _config(nix, kind, "systemd.network")
    (one,) = network["networks"].values()

    assert network["enable"] is True
    assert {"enp5s0", "eth0"} == set(one["matchConfig"]["Name"].split())
    assert ("ipv4", "routable") == (
        one["networkConfig"]["DHCP"],
        one["linkConfig"]["RequiredForOnline"],
    )
    assert {"useDHCP": False, "dhcpcd": {"enable": False}}.items() <= _config(
        nix, kind, "networking"
    ).items()


def test_the_runner_starts_as_it_is(nix: Nix) -> None:
    """The wrapper starts bash on the very file, and gives it its tools and the job its libraries."""
    run = "(import ./tests/nix/stubs).packages.x86_64-linux.incus-run"
    path = place_of(guest_files() / "pikaci-incus-run")
    wrapper = nix.evaluate(f'removeAttrs {run}.arguments [ "passthru" ]')
    runner = nix.evaluate(f"{run}.runner.arguments")

    assert (guest_files() / "pikaci-incus-run").read_text() == runner["text"]
    assert runner["executable"] is True
    assert f'exec /stub/bash/bin/bash {path} "$@"\n' == wrapper["text"]
    assert {"/stub/coreutils", "/stub/util-linux", "/stub/findutils"} <= set(
        wrapper["runtimeInputs"]
    )
    assert "/stub/openssl/lib/pkgconfig" in wrapper["runtimeEnv"]["PKG_CONFIG_PATH"]


def test_the_list_of_packages_is_where_the_docs_say(nix: Nix) -> None:
    """One file, which needs nothing but a nixpkgs."""
    page = (ROOT / "docs/nixos.md").read_text()
    lists = nix.evaluate(
        "builtins.attrNames (import ./nix/incus/packages.nix"
        ' (import ./tests/nix/stubs/pkgs.nix { system = "x86_64-linux"; }))'
    )

    assert "nix/incus/packages.nix" in page
    assert ["libraries", "tools"] == lists
