"""The host module, evaluated whole, with stand-ins for nixpkgs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from orchestrator.cli.reap import command as reap
from orchestrator.cli.serve import command as serve
from orchestrator.cli.setup import command as setup
from orchestrator.host.doctor import SYSCTLS
from orchestrator.incus import Host
from states.spec import SIZE_PATTERN

from .evaluation import ROOT, Nix

UNIT = (ROOT / "docs/pikaci.service").read_text()
TOKEN = {"listen": "127.0.0.1:8443", "tokenFile": "/run/secrets/token"}
# Where NixOS has something of its own in place of a file that a person edits.
OWN = {"ExecStart", "Environment", "Group", "RuntimeDirectory", "RuntimeDirectoryMode"}


def _host(settings: str) -> str:
    return (
        "(import ./tests/nix/stubs/modules.nix { modules = [ ./nix/host.nix"
        f" {{ services.pikaci = {{ enable = true; {settings} }}; }} ]; }}).config"
    )


def _of(settings: dict[str, Any]) -> str:
    return "".join(f"{key} = {_literal(value)}; " for key, value in settings.items())


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[ {' '.join(map(_literal, value))} ]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return text if isinstance(value, int) else f'"{text}"'


def _service(nix: Nix, name: str = "pikaci", **settings: Any) -> dict[str, Any]:
    service: dict[str, Any] = nix.evaluate(f"{_host(_of(settings))}.systemd.services.{name}")
    return service


def _words(line: str) -> list[str]:
    """The arguments that systemd makes of a line of ExecStart, where %d is left as it is."""
    return [
        word.replace("%%", "%").replace("$$", "$")
        for word in shlex.split(line)  # close enough: no escape of JSON's is among the tests' words
    ]


def _arguments(command: click.Command, service: dict[str, Any]) -> dict[str, Any]:
    """What pikaci makes of the unit's command line."""
    program, verb, *words = _words(service["serviceConfig"]["ExecStart"])

    assert ("/stub/pikaci/bin/pikaci", command.name) == (program, verb)
    return command.make_context(verb, words).params


def _directives(section: str) -> dict[str, str]:
    lines = UNIT.partition(f"[{section}]\n")[2].partition("\n[")[0].splitlines()
    return dict(line.partition("=")[::2] for line in lines if "=" in line and line[0] != "#")


def _as_written(value: Any) -> str:
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


def test_the_service_is_that_of_the_unit_file(nix: Nix) -> None:
    """Every directive, with its value: a host of NixOS is no softer than another."""
    service = _service(nix)
    ours = {key: _as_written(value) for key, value in service["serviceConfig"].items()}
    theirs = _directives("Service")

    assert {key: value for key, value in theirs.items() if key not in OWN} == {
        key: value for key, value in ours.items() if key not in OWN
    }
    assert OWN - {"Environment"} <= ours.keys()
    variables = dict(word.split("=") for word in theirs["Environment"].split())
    assert variables == service["environment"]
    unit = _directives("Unit")
    assert set(unit["After"].split()) <= set(service["after"])
    assert unit["Wants"].split() == service["wants"]
    assert _directives("Install")["WantedBy"].split() == service["wantedBy"]


@pytest.mark.parametrize("name", ["pikaci-reap", "pikaci-images"])
def test_its_other_services_are_as_hardened(nix: Nix, name: str) -> None:
    """They differ in what they run, and run once."""
    host = _host('images.dev = [ "/a.tar" ];')
    other = nix.evaluate(f"{host}.systemd.services.{name}.serviceConfig")
    ours = _service(nix)["serviceConfig"]

    assert "oneshot" == other.pop("Type")
    other.pop("RemainAfterExit", None)
    other.pop("ExecStart")
    assert other.items() <= ours.items()
    assert {"User", "CapabilityBoundingSet", "ProtectSystem", "SystemCallFilter"} <= other.keys()


def test_without_settings_the_command_line_is_short(nix: Nix) -> None:
    """The state root alone; every default is pikaci's own."""
    given = _arguments(serve, _service(nix))

    assert {"state_root": Path("/var/lib/pikaci/root")} == {
        key: value for key, value in given.items() if value not in (None, ())
    }


def test_every_setting_reaches_the_command(nix: Nix) -> None:
    """As `pikaci serve` itself reads it."""
    settings = {
        "workspace": "/srv/a project",
        "jobs": 3,
        "cpus": 8,
        "memory": "16GiB",
        "queue": 500,
        "warm": 2,
        "warmSecs": 60,
        "socket": "/run/pikaci/service.sock",
        "hosts": ["local", "build"],
        "allowMounts": ["/nix/store", "/srv/a place"],
        **TOKEN,
    }
    service = _service(nix, **settings)
    given = _arguments(serve, service)

    assert {
        "workspace": Path("/srv/a project"),
        "state_root": Path("/var/lib/pikaci/root"),
        "hosts": ("local", "build"),
        "parallel": 3,
        "cpus": 8,
        "memory": "16GiB",
        "queue_jobs": 500,
        "warm": 2,
        "warm_secs": 60,
        "log_form": None,
        "socket_path": Path("/run/pikaci/service.sock"),
        "allow_mounts": (Path("/nix/store"), Path("/srv/a place")),
        "listen": "127.0.0.1:8443",
        "token_file": Path("%d/token"),  # systemd's word for the directory of credentials
    } == given
    assert "token:/run/secrets/token" == service["serviceConfig"]["LoadCredential"]
    assert "AF_UNIX AF_INET AF_INET6" == service["serviceConfig"]["RestrictAddressFamilies"]


@pytest.mark.parametrize(
    "settings", [{"hosts": ["build"]}, {"hostsFile": "/etc/pikaci/100% hosts.toml"}]
)
def test_a_service_with_other_hosts_reaches_them(nix: Nix, settings: dict[str, Any]) -> None:
    """Over TLS it needs the network, over ssh also the program; jobs may name hosts of the file."""
    service = _service(nix, **settings)

    assert "AF_UNIX AF_INET AF_INET6" == service["serviceConfig"]["RestrictAddressFamilies"]
    assert "LoadCredential" not in service["serviceConfig"]
    assert {"/stub/incus-client", "/stub/openssh"} <= set(service["path"])
    named = settings.get("hostsFile", "").replace("%", "%%")
    assert named == service["environment"].get("PIKACI_HOSTS", "")
    assert "/var/lib" == service["environment"]["XDG_STATE_HOME"]


def test_systemd_takes_paths_as_they_are(nix: Nix) -> None:
    """`%` and `$` are its own: unescaped, a unit gets other paths, or does not start."""
    odd = '/srv/100%d of $HOME and "quotes"'
    service = _service(nix, workspace=odd, allowMounts=[odd], **{**TOKEN, "tokenFile": "/run/%d"})
    given = _arguments(serve, service)

    assert (Path(odd), (Path(odd),)) == (given["workspace"], given["allow_mounts"])
    assert "token:/run/%%d" == service["serviceConfig"]["LoadCredential"]
    images = _host(f'images."a%d" = [ {_literal(odd)} ];')
    (line,) = nix.evaluate(f"{images}.systemd.services.pikaci-images.serviceConfig.ExecStart")
    assert ["--alias", "a%d", odd] == _words(line)[3:]


def test_a_size_is_what_pikaci_takes_for_one(nix: Nix) -> None:
    """The module's pattern is that of the command, which a wrong size would stop late."""
    pattern = SIZE_PATTERN.removeprefix("^")

    assert any(
        pattern.startswith(line.split('"')[1])
        for line in (ROOT / "nix/host.nix").read_text().splitlines()
        if "strMatching" in line
    )
    much = _host('memory = "much";')
    assert "memory is no" in nix.refusal(f"{much}.systemd.services.pikaci")
    forty = _host('poolSize = "forty";')
    assert "poolSize is no" in nix.refusal(f"{forty}.virtualisation.incus.preseed")


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, True),
        (TOKEN, True),
        ({"listen": "127.0.0.1:8443"}, False),
        ({"tokenFile": "/run/secrets/token"}, False),
        ({"socket": "/run/pikaci/service.sock"}, True),
        ({"socket": "/tmp/service.sock"}, False),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    nix: Nix, settings: dict[str, str], kept: bool
) -> None:
    """TCP without a token would let anybody be root; a socket has to be where it may write."""
    assertions = nix.evaluate(f"{_host(_of(settings))}.assertions")

    assert kept == all(one["assertion"] for one in assertions)


def test_the_kernel_s_limits_are_enough(nix: Nix) -> None:
    """What `pikaci doctor` asks for; nothing that Incus's own module sets higher is lowered."""
    limits = nix.evaluate(f"{_host('')}.boot.kernel.sysctl")

    for name, least in SYSCTLS.items():
        assert limits[name.replace("/", ".")] >= least


def test_incus_has_what_set_up_makes(nix: Nix) -> None:
    """Incus runs, with the project and the pool that a plan names."""
    incus = nix.evaluate(f"{_host('')}.virtualisation.incus")
    (project,), (pool,) = incus["preseed"]["projects"], incus["preseed"]["storage_pools"]

    assert incus["enable"] is True
    assert (Host().project, Host().pool) == (project["name"], pool["name"])
    assert {"features.images": "true", "features.profiles": "true"} == project["config"]
    assert ("btrfs", "40GiB") == (pool["driver"], pool["config"]["size"])


def test_set_up_does_what_a_preseed_cannot(nix: Nix) -> None:
    """As root, with btrfs's tool, before any guest; it leaves nothing where the service writes."""
    service = _service(nix, "pikaci-setup")
    given = _arguments(setup, service)

    assert given["no_image"] is True
    assert "User" not in service["serviceConfig"]
    assert {"/stub/btrfs-progs", "/stub/incus-client"} <= set(service["path"])
    assert "/run/pikaci-setup" == service["environment"]["XDG_STATE_HOME"]
    assert ["pikaci-images.service"] == service["before"]
    assert {"incus.service", "incus-preseed.service"} <= set(service["after"])
    assert "pikaci-setup.service" in _service(nix)["after"]


def test_the_user_may_use_incus_and_no_more(nix: Nix) -> None:
    """A system user of its own; somebody else's name is left to who made it."""
    ours = nix.evaluate(f"{_host('')}.users")
    other = _host('user = "ci"; group = "ci";')
    theirs = nix.evaluate(f"{other}.users")

    assert {"isSystemUser": True, "group": "pikaci", "extraGroups": ["incus-admin"]} == (
        ours["users"]["pikaci"]
    )
    assert {} == theirs


def test_the_reaper_comes_round(nix: Nix) -> None:
    """Hourly, with a state root that the service does not hold."""
    service = _service(nix, "pikaci-reap")
    given = _arguments(reap, service)

    assert "hourly" == service["startAt"]
    assert given["expired"] is True
    assert given["dry_run"] is False
    assert Path("/var/lib/pikaci/reaper") == given["state_root"]


def test_images_are_imported_before_the_service_starts(nix: Nix) -> None:
    """Those that are given, by their aliases; `pikaci image import` leaves what is there."""
    host = _host(
        'images."pikaci/dev" = [ "/a/metadata.tar.xz" "/a/nixos.qcow2" ]; images.b = [ "/b" ];'
    )
    service = nix.evaluate(f"{host}.systemd.services.pikaci-images")

    assert [
        "/stub/pikaci/bin/pikaci image import --alias b /b",
        "/stub/pikaci/bin/pikaci image import --alias pikaci/dev /a/metadata.tar.xz /a/nixos.qcow2",
    ] == [" ".join(_words(line)) for line in service["serviceConfig"]["ExecStart"]]
    assert "pikaci-images.service" in nix.evaluate(f"{host}.systemd.services.pikaci.after")
    assert "pikaci-images" not in nix.evaluate(f"{_host('')}.systemd.services")


def test_a_host_that_does_not_want_it_is_left_alone(nix: Nix) -> None:
    """The module imported, and not enabled, changes nothing."""
    bare = "(import ./tests/nix/stubs/modules.nix { modules = [ ]; }).config"
    imported = "(import ./tests/nix/stubs/modules.nix { modules = [ ./nix/host.nix ]; }).config"

    for part in ("boot", "virtualisation", "users or { }", "systemd.services or { }"):
        assert nix.evaluate(f"{bare}.{part}") == nix.evaluate(f"{imported}.{part}")
