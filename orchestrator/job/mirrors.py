"""Where this host gets its packages from, for guests: `host_mirrors`. Blocks: call it in a thread.

Read from the settings of pip, npm, Go, cargo and apt. Addresses are handed on without credentials;
local paths, and addresses that only this host reaches, are not handed on.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from orchestrator.image.debian import debian_sources
from states.egress import authority, plain_host
from states.errors import PikaciError

MAX_BYTES = 1 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PIP = ("etc/pip.conf", "etc/xdg/pip/pip.conf")
_PIP_HOME = (".pip/pip.conf", ".config/pip/pip.conf")
_CARGO = re.compile(r"CARGO_REGISTRIES_[A-Z0-9_]+_(INDEX|PROTOCOL)|CARGO_REGISTRY_DEFAULT")
_URL = re.compile(r"https?://[^\s,|\"']+", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s,|\"']+", re.IGNORECASE)


@dataclass(frozen=True)
class Mirrors:
    """`variables` for a job, apt's `sources`, and the `hosts` that they lead to, with ports."""

    variables: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def host_mirrors(
    environment: Mapping[str, str], *, home: Path | None = None, root: Path = Path("/")
) -> Mirrors:
    """What this host's settings say. A file that cannot be read says nothing.

    `home` is the user's by default, if there is one.
    """
    if home is None:
        # An account without one gets "~" back, which would be a directory of the workspace.
        named = os.path.expanduser("~")
        home = Path(named) if named.startswith("/") else Path("/nonexistent")
    variables = {
        **_pip(environment, home, root),
        **_npm(environment, home, root),
        **_go(environment, home),
        **{name: _stripped(value) for name, value in environment.items() if _CARGO.fullmatch(name)},
    }
    try:
        lines = debian_sources(root / "etc/apt").lines
    except (PikaciError, OSError):
        lines = ()
    sources = tuple(_stripped(line) for line in lines if _URL.search(line))
    text = "\n".join([*variables.values(), *sources])
    return Mirrors(variables, sources, tuple(sorted(_hosts(text))))


def _pip(environment: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    settings: dict[str, str] = {}
    named = environment.get("PIP_CONFIG_FILE") or ""
    files = [*(root / name for name in _PIP), *(home / name for name in _PIP_HOME), Path(named)]
    for file in files:
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_read(file))
        except configparser.Error:
            continue
        if parser.has_section("global"):
            settings.update(parser.items("global"))
    for key in ("index-url", "extra-index-url", "trusted-host"):
        if value := environment.get("PIP_" + key.upper().replace("-", "_")):
            settings[key] = value
    found = {
        "PIP_INDEX_URL": " ".join(_urls(settings.get("index-url", ""))),
        "PIP_EXTRA_INDEX_URL": " ".join(_urls(settings.get("extra-index-url", ""))),
        "PIP_TRUSTED_HOST": " ".join(settings.get("trusted-host", "").split()),
    }
    found["UV_DEFAULT_INDEX"] = found["PIP_INDEX_URL"]
    found["UV_INDEX"] = found["PIP_EXTRA_INDEX_URL"]
    found["UV_INSECURE_HOST"] = found["PIP_TRUSTED_HOST"]
    return {name: value for name, value in found.items() if value}


def _npm(environment: Mapping[str, str], home: Path, root: Path) -> dict[str, str]:
    registry = ""
    for file in (root / "etc/npmrc", home / ".npmrc"):
        for line in _read(file).splitlines():
            if setting := re.match(r"\s*registry\s*=\s*(\S+)", line):
                registry = setting[1]
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        registry = environment.get(name) or registry
    urls = list(_urls(registry))
    return {"npm_config_registry": urls[0]} if urls else {}


def _go(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    settings = dict(re.findall(r"(?m)^(GOPROXY|GOSUMDB)=(.*)$", _read(home / ".config/go/env")))
    settings |= {name: environment[name] for name in ("GOPROXY", "GOSUMDB") if name in environment}
    if proxies := settings.get("GOPROXY"):
        kept = [
            entry if entry in ("direct", "off") else " ".join(_urls(entry))
            for entry in re.split("[,|]", proxies)
        ]
        settings["GOPROXY"] = ",".join(filter(None, kept))
    return {name: _stripped(value) for name, value in settings.items() if value}


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _urls(text: str) -> Iterator[str]:
    """The addresses in a list that other machines than this one can reach, without credentials."""
    for url in _URL.findall(text):
        try:
            host = urlsplit(url).hostname
        except ValueError:
            continue
        if host and host not in _LOOPBACK:
            yield _without_credentials(url)


def _stripped(text: str) -> str:
    return _ADDRESS.sub(lambda found: _without_credentials(found[0]), text)


def _without_credentials(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""  # where it leads, and what in it is secret, cannot be told
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _hosts(text: str) -> Iterable[str]:
    found = set()
    for url in _URL.findall(text):
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            continue
        if host := plain_host(parts.hostname or ""):
            found.add(authority(host, port))
    return found
