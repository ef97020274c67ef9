"""The guest contract, read from the same file that images are built from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

# What the runner sets for every job, besides its user's HOME, USER and LOGNAME.
JOB_VARIABLES = {
    "CARGO_HOME": "/cargo-home",
    "CARGO_TARGET_DIR": "/cargo-target",
    "CARGO_INCREMENTAL": "0",
    "CARGO_TERM_COLOR": "never",
    "XDG_CACHE_HOME": "/cargo-home/xdg-cache",
    "XDG_STATE_HOME": "/artifacts/xdg-state",
}


class Variables(msgspec.Struct, frozen=True):
    """Names of the variables that `incus exec ... -- env` sets for the runner.

    `needs_nonce` is one of the exec's own environment; runners older than 1.4 do not know it.
    """

    command: str
    timeout_secs: str
    run_as_root: str
    staged_nix_store: str
    needs_nonce: str


class Stdin(msgspec.Struct, frozen=True):
    """Reserved names on the runner's stdin; they do not reach the job."""

    nonce: str
    grace_secs: str
    lease_secs: str
    scratch: str
    log_bytes: str
    output: str


class User(msgspec.Struct, frozen=True):
    """The user of jobs that do not run as root."""

    name: str
    uid: int
    group: str
    gid: int
    home: str


class Directory(msgspec.Struct, frozen=True):
    """A directory that the image creates at boot; `mode` is octal ("0755")."""

    path: str
    user: str
    group: str
    mode: str


class Egress(msgspec.Struct, frozen=True):
    """The guest's end of the way out: a program, and the port of its loopback that it listens on.

    Images keep this from the minor version `since` on.
    """

    program: str
    port: int
    since: int

    @property
    def url(self) -> str:
        """The proxy, as the job sees it."""
        return f"http://127.0.0.1:{self.port}"


class Certificates(msgspec.Struct, frozen=True):
    """Where a guest finds the authorities that its host trusts: a device, and files in it."""

    device: str
    path: str
    bundle: str
    apt: str
    apt_mirrors: str
    sources: str


class Contract(msgspec.Struct, frozen=True):
    """What host and guest may rely on.

    An image of another `version` is refused. One of an older `minor` version is used, with a
    warning. An image names the two in its properties `image_property` and `minor_property`.
    """

    version: int
    minor: int
    runner: str
    variables: Variables
    stdin: Stdin
    user: User
    devices: dict[str, str]
    directories: tuple[Directory, ...]
    artifacts: str
    log: str
    result: str
    usage: str
    private: str
    egress: Egress
    certificates: Certificates
    image_property: str
    minor_property: str

    @property
    def name(self) -> str:
        """Both versions, for people: "1.4"."""
        return f"{self.version}.{self.minor}"


# What `pikaci image build` is called with for the images that it names by itself.
_BUILT_BY = {
    "pikaci/dev": "",
    "pikaci/systemd": " --systemd",
    "pikaci/vm": " --vm",
    "pikaci/nixos": " --nixos container",
    "pikaci/nixos-vm": " --nixos vm",
}


def how_to_rebuild(alias: str) -> str:
    """What to do about an image that is older than this pikaci."""
    if alias in _BUILT_BY:
        return f"`pikaci image build{_BUILT_BY[alias]}` rebuilds {alias}"
    return (
        f"rebuild {alias} the way it was built: with `pikaci image build --alias NAME`, or, if a"
        " job makes it, with `pikaci image build` for that job's own image"
    )


def guest_files() -> Path:
    """The directory with the contract, the runner and the init that go into an image."""
    return Path(__file__).with_name("guest")


_DECODER = msgspec.json.Decoder(Contract)


@cache
def contract() -> Contract:
    """The contract version that this pikaci implements."""
    return _DECODER.decode((guest_files() / "contract.json").read_bytes())
