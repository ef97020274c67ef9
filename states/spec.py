"""What a user asks for: one job, strictly decoded.

Decoding checks types and ranges; `states.rules` checks the rest.
"""

# Annotations are not text here: msgspec would compile each of them, at every start.
import enum
import re
from typing import Annotated

import msgspec

from states.mistakes import ALLOWED

MAX_TIMEOUT_SECS = 7 * 24 * 3600
KEEP_SECS = 3600
MAX_KEEP_SECS = 24 * 3600
_END = r"$(?![\s\S])"  # Python's `$` alone allows a line break at the end
SIZE_PATTERN = rf"^[1-9][0-9]{{0,6}}(kB|MB|GB|TB|KiB|MiB|GiB|TiB){_END}"
MAX_NAME = 128
NAME_PATTERN = rf"^[A-Za-z0-9._/-]{{1,{MAX_NAME}}}{_END}"

_ENV_PATTERN = rf"^[A-Za-z_][A-Za-z0-9_]{{0,254}}{_END}"
# An alias, or a fingerprint; no colon, so that no remote can be smuggled in.
_IMAGE_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._/+-]{{0,254}}{_END}"
_NETWORK_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}{_END}"


def _text(pattern: str, allowed: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=pattern, extra={ALLOWED: allowed})


NAME_ALLOWED = f"letters, digits and ._/-, at most {MAX_NAME}"
JobName = Annotated[str, _text(NAME_PATTERN, NAME_ALLOWED)]
HOST_PATTERN = rf"^[a-z0-9][a-z0-9-]{{0,62}}{_END}"
HOST_ALLOWED = "a-z, 0-9 and `-`, at most 63 characters"
HostName = Annotated[str, _text(HOST_PATTERN, HOST_ALLOWED)]
_Size = Annotated[str, _text(SIZE_PATTERN, "a size with its unit, for example 4GiB or 500MB")]
_EnvName = Annotated[
    str, _text(_ENV_PATTERN, "names of letters, digits and _, not beginning with a digit")
]
_Image = Annotated[
    str, _text(_IMAGE_PATTERN, "the alias or fingerprint of an image, without a remote")
]
_Network = Annotated[str, _text(_NETWORK_PATTERN, "none, or the name of an Incus network")]
_Path = Annotated[str, msgspec.Meta(min_length=1)]

_UNITS = {
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}

IMAGE = "image"  # the `output` of a job whose guest becomes an image


class InstanceType(enum.StrEnum):
    """Incus's two kinds of instance."""

    CONTAINER = "container"
    VIRTUAL_MACHINE = "virtual-machine"


class Keep(enum.StrEnum):
    """When the guest of a job is kept for debugging."""

    FAILURE = "failure"
    NEVER = "never"


class OutputOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stands for the output of another job of the same run, by its name."""

    job: JobName


class Mount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An additional read-only directory: `path` in the guest (absolute).

    `source` is a directory of the host, or the output of another job.
    """

    source: _Path | OutputOf
    path: _Path


_Secs = Annotated[int, msgspec.Meta(ge=1, le=MAX_TIMEOUT_SECS)]


class Deadlines(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How long each effect of an attempt may take, in seconds.

    `reset_secs`: empty the artifact directory. `image_secs`: look up the image. `create_secs`:
    create the instance. `start_secs`: start it; for a VM, until its agent answers. `ready_secs`:
    until the runner and the mounts are there in the guest. `grace_secs`: between TERM and KILL (at
    most 5 s for a cancellation). `run_margin_secs`: time beyond the command's own limit for the
    guest to report its end. `collect_secs`: fetch result, log and artifacts. `publish_secs`: fetch
    the job's output, or make an image of its guest. `delete_secs`: delete the instance.
    `daemon_secs`: how long any of these waits for a daemon that does not answer.
    """

    reset_secs: _Secs = 60
    image_secs: _Secs = 30
    create_secs: _Secs = 600
    start_secs: _Secs = 120
    ready_secs: _Secs = 60
    grace_secs: Annotated[int, msgspec.Meta(ge=0, le=9999)] = 5
    run_margin_secs: _Secs = 60
    collect_secs: _Secs = 300
    publish_secs: _Secs = 600
    delete_secs: _Secs = 120
    daemon_secs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMEOUT_SECS)] = 120


class SecretSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a secret's value comes from on the host: the variable `env`, or the `file`.

    Exactly one of the two; `file` is an absolute path. A spec never holds the value itself.
    """

    env: _EnvName | None = None
    file: _Path | None = None


class JobSpec(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A job as a user describes it.

    Sizes are written as in Incus ("4GiB"). `timeout_secs` bounds the command alone, not the phases
    around it. `log_bytes` bounds the log; output beyond it is dropped.
    `egress` names the hosts that the job may reach through a proxy, without a network. With
    `host_mirrors` it gets packages from where its host gets them.
    `env` is public; `secrets` says where the values of other variables come from.
    `artifacts` are globs below `/artifacts`; `junit` are others, of test reports.
    `workspace_deps`, `workspace_build` and `nix_store` are directories for the contract's three
    optional devices: of the host, or the output of another job. `retries` is how often a job is
    retried after an infrastructure fault before the command's start. Queued jobs with a higher
    `priority` start first. `host` names the host that runs the job, which the user's settings have.

    `needs` are jobs of the same run that must pass first. `output` is what the job leaves for
    others: a directory of its guest, or "image" for the guest itself. An output is reused while
    everything that pikaci gives to the job is the same, and it is younger than `max_age_secs`.
    `sources` are globs of the workspace's files that the job sees, and so depends on; all by
    default. With `keep` the guest of a job that fails is kept for debugging for `keep_secs`, by
    default an hour; not that of a job that was cancelled. "never" keeps no guest, whatever the
    process does.
    """

    command: str
    timeout_secs: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIMEOUT_SECS)] = 3600
    run_as_root: bool = False
    writable_workspace: bool = False
    description: str = ""
    image: _Image | OutputOf = "pikaci/dev"
    instance_type: InstanceType = InstanceType.CONTAINER
    cpus: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 2
    memory: _Size = "4GiB"
    disk: _Size = "10GiB"
    processes: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 4096
    log_bytes: _Size = "2GiB"
    network: _Network = "none"
    egress: tuple[str, ...] = ()
    host_mirrors: bool = False
    scratch: bool = False
    env: dict[_EnvName, str] = msgspec.field(default_factory=dict)
    secrets: dict[_EnvName, SecretSource] = msgspec.field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    junit: tuple[str, ...] = ()
    workspace_deps: _Path | OutputOf | None = None
    workspace_build: _Path | OutputOf | None = None
    nix_store: _Path | OutputOf | None = None
    mounts: tuple[Mount, ...] = ()
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    host: HostName | None = None
    deadlines: Deadlines = Deadlines()
    needs: tuple[JobName, ...] = ()
    sources: tuple[str, ...] | None = None
    output: _Path | None = None
    max_age_secs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    keep: Keep | None = None
    keep_secs: Annotated[int, msgspec.Meta(ge=1, le=MAX_KEEP_SECS)] | None = None


def is_image_name(name: str) -> bool:
    """Whether this is a valid `image` for a spec."""
    return re.match(_IMAGE_PATTERN, name) is not None


def keep_secs(spec: JobSpec, default: float | None) -> float | None:
    """How long the guest of the job is kept if it fails, in seconds; None for not at all.

    `default` is for jobs that do not say.
    """
    if spec.keep is None:
        return default
    if spec.keep is Keep.NEVER:
        return None
    return KEEP_SECS if spec.keep_secs is None else spec.keep_secs


def size_in_bytes(size: str) -> int:
    """Bytes of a size in a spec: "4GiB" is 4 * 2**30."""
    number = size.rstrip("kKMGTiB")
    unit: int = _UNITS[size.removeprefix(number)]
    return int(number) * unit
