"""The user's hosts: `[hosts.NAME]` in a file of their own, checked whole before any is used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from orchestrator.errors import UsageError
from orchestrator.incus import LOCAL, Host
from states.errors import SpecError, mistake_lines
from states.mistakes import ALLOWED, mistakes, shown_value, unknown_keys
from states.spec import HOST_ALLOWED, HOST_PATTERN

MAX_BYTES = 1 << 20
VARIABLE = "PIKACI_HOSTS"
FAR_SOCKET = "/var/lib/incus/unix.socket"


def _text(pattern: str, allowed: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=pattern, extra={ALLOWED: allowed})


_Word = Annotated[str, _text(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", "letters, digits, `.`, `_`, `-`")]
_Path = Annotated[str, _text(r"^/[^\0\n]*\Z", "an absolute path")]
# Nothing that ssh could take for an option, or a shell for more than a word.
_SSH = Annotated[
    str, _text(r"^[A-Za-z0-9_][A-Za-z0-9_.@:-]*\Z", "HOST, USER@HOST, or a Host of ssh")
]
_OF_SSH = ("port", "identity", "socket", "directory")


class HostUnknown(UsageError):
    """The user's settings have no host of this name."""


class HostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user says of one host.

    Either `ssh` is how to log in there, with `port` and `identity` (a private key) where ssh's own
    configuration does not have them; or `remote` is an Incus remote. `socket` is Incus's socket
    there, `directory` pikaci's directory there, "" for one in the user's state directory. `jobs` is
    how many jobs may run there at once, in a cluster on each member. `target` is the member or
    `@group` of a cluster that takes guests. All members of a cluster share the directory `shared`.
    """

    ssh: _SSH | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    identity: _Path | None = None
    socket: _Path = FAR_SOCKET
    directory: _Path | None = None
    remote: _Word | None = None
    project: _Word = "pikaci"
    pool: _Word = "pikaci"
    jobs: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    target: Annotated[str, _text(r"^@?[A-Za-z0-9][A-Za-z0-9._-]*\Z", "MEMBER or @GROUP")] | None = (
        None
    )
    shared: _Path | None = None

    def host(self, name: str) -> Host:
        """The host as plans see it."""
        return Host(
            name=name,
            remote=self.remote or LOCAL,
            project=self.project,
            pool=self.pool,
            target=self.target or "",
        )


def settings_of(name: str, named: Mapping[str, HostSettings]) -> HostSettings:
    """The settings of the host; `HostUnknown` if there are none."""
    if name not in named:
        raise HostUnknown(
            f"there is no host {name!r} in {hosts_file()}",
            resolution=f"one of {', '.join((LOCAL, *named))}; `pikaci host add {name}` adds it",
        )
    return named[name]


def find_host(name: str) -> Host:
    """The host with this name as plans see it. Blocks on the disk. Errors as above."""
    return Host() if name == LOCAL else settings_of(name, load_hosts()).host(name)


def hosts_file() -> Path:
    """The file of the user's hosts; it need not exist."""
    if named := os.environ.get(VARIABLE):
        return Path(named).absolute()
    base = os.environ.get("XDG_CONFIG_HOME") or ""
    home = Path(base) if base.startswith("/") else Path(os.path.expanduser("~")) / ".config"
    return home / "pikaci" / "hosts.toml"


def load_hosts(path: Path | None = None) -> Mapping[str, HostSettings]:
    """The hosts in the file, by name; none if there is no file. Blocks on the disk.

    `UsageError` with a line for each mistake.
    """
    path = path or hosts_file()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_hosts(data, path)


def parse_hosts(data: bytes, path: Path) -> Mapping[str, HostSettings]:
    """The hosts in a file with this content. Errors are those of `load_hosts`."""
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path}: has more than {MAX_BYTES} bytes")
    import tomllib  # here: most users have no other hosts

    try:
        document = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from None
    found = [*unknown_keys(document, ("hosts",))]
    tables = document.get("hosts", {})
    if not isinstance(tables, dict):
        found.append(SpecError("hosts", f"is {shown_value(tables)}", allowed="[hosts.NAME]"))
        tables = {}
    hosts: dict[str, HostSettings] = {}
    for name, table in tables.items():
        key = f"hosts.{name}"
        wrong = [*_wrong_name(name, key), *mistakes(table, HostSettings, key)]
        if not wrong:
            hosts[name] = msgspec.convert(table, HostSettings)
            wrong = [one.below(key) for one in _wrong_together(table)]
        found += wrong
    if found:
        lines = mistake_lines(found, f"{path}: ")
        if len(found) == 1:
            raise UsageError(lines)
        raise UsageError(f"{path} has {len(found)} mistakes", details=lines)
    return hosts


def _wrong_name(name: str, key: str) -> Iterator[SpecError]:
    if not re.match(HOST_PATTERN, name):
        yield SpecError(key, "is not a valid name of a host", allowed=HOST_ALLOWED)
    elif name == LOCAL:
        yield SpecError(key, "is this machine, which needs no settings", allowed="another name")


def _wrong_together(table: Mapping[str, object]) -> Iterator[SpecError]:
    if "ssh" in table and "remote" in table:
        yield SpecError("remote", "does not go with `ssh`", allowed="one of the two")
    elif "ssh" not in table and "remote" not in table:
        yield SpecError("ssh", "is missing", allowed='ssh = "USER@HOST", or remote = "NAME"')
    if "ssh" not in table:
        for key in _OF_SSH:
            if key in table:
                yield SpecError(key, "needs `ssh`", allowed="nothing here")
