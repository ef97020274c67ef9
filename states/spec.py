"""What a user asks for: one job, strictly decoded.

Decoding checks types and ranges. `check` repeats that for specs constructed in Python (constructors
do not validate), and adds the rules that span fields. Nothing here looks at a disk or a daemon: the
orchestrator finds out whether a directory exists.

Rules apply to new specs only. One that passes is a `CheckedSpec` from then on. Recorded specs are
history: `states.recorded` reads them whatever today's rules are.
"""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from states.egress import check_egress
from states.environment import (
    MAX_BYTES,
    MAX_VARIABLE_BYTES,
    refusal,
    size_of,
    total_size,
)
from states.errors import SpecError, WritableWorkspace
from states.mistakes import ALLOWED, mistakes, raise_all

MAX_COMMAND_BYTES = 131_000  # the kernel passes at most 131,071 bytes in one argument
MAX_TIMEOUT_SECS = 7 * 24 * 3600
# systemd, the runner and the execs in a guest need up to 20, threads included.
MIN_PROCESSES = 64
# Tried: with less than 16 MiB the runner cannot say how a job ended, with less than 32 MiB a guest
# with systemd does not boot.
MIN_MEMORY = "64MiB"

_END = r"$(?![\s\S])"  # Python's `$` alone allows a line break at the end
SIZE_PATTERN = rf"^[1-9][0-9]{{0,6}}(kB|MB|GB|TB|KiB|MiB|GiB|TiB){_END}"
NAME_PATTERN = rf"^[A-Za-z0-9._/-]{{1,128}}{_END}"

_ENV_PATTERN = rf"^[A-Za-z_][A-Za-z0-9_]{{0,254}}{_END}"
# An alias, or a fingerprint; no colon, so that no remote can be smuggled in.
_IMAGE_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._/+-]{{0,254}}{_END}"
_NETWORK_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,62}}{_END}"


def _text(pattern: str, allowed: str) -> msgspec.Meta:
    return msgspec.Meta(pattern=pattern, extra={ALLOWED: allowed})


NAME_ALLOWED = "letters, digits and ._/-, at most 128"
JobName = Annotated[str, _text(NAME_PATTERN, NAME_ALLOWED)]
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

SNAPSHOT_PATH = "/workspace/snapshot"
# Guest paths: a user's mount may neither cover one nor lie below one.
RESERVED_PATHS = (
    "/artifacts",
    "/bin",
    "/cargo-home",
    "/cargo-target",
    "/dev",
    "/etc",
    "/home/pikaci",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/staged/linux-rust/workspace-build",
    "/staged/linux-rust/workspace-deps",
    "/mnt/pikaci-certificates",
    "/mnt/pikaci-nix-store",
    "/sys",
    "/tmp",
    "/usr",
    "/var/lib/pikaci-incus-run",
    SNAPSHOT_PATH,
)
WORKSPACE, ARTIFACTS = "/workspace", "/artifacts"
IMAGE = "image"  # the `output` of a job whose guest becomes an image


class InstanceType(enum.StrEnum):
    """Incus's two kinds of instance."""

    CONTAINER = "container"
    VIRTUAL_MACHINE = "virtual-machine"


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
    `priority` start first.

    `needs` are jobs of the same run that must pass first. `output` is what the job leaves for
    others: a directory of its guest, or "image" for the guest itself. An output is reused while
    everything that pikaci gives to the job is the same, and it is younger than `max_age_secs`.
    `sources` are globs of the workspace's files that the job sees, and so depends on; all by
    default.
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
    deadlines: Deadlines = Deadlines()
    needs: tuple[JobName, ...] = ()
    sources: tuple[str, ...] | None = None
    output: _Path | None = None
    max_age_secs: Annotated[int, msgspec.Meta(ge=1)] | None = None


def is_image_name(name: str) -> bool:
    """Whether this is a valid `image` for a spec."""
    return re.match(_IMAGE_PATTERN, name) is not None


def size_in_bytes(size: str) -> int:
    """Bytes of a size in a spec: "4GiB" is 4 * 2**30."""
    number = size.rstrip("kKMGTiB")
    unit: int = _UNITS[size.removeprefix(number)]
    return int(number) * unit


class CheckedSpec:
    """A spec that obeys the rules: the constructor checks it.

    `spec` is an equal copy, so that changes to the original cannot bypass the check. Raises
    `SpecError`, or `SpecErrors` if there are several problems.
    """

    __slots__ = ("spec",)
    spec: Final[JobSpec]

    def __init__(self, spec: JobSpec) -> None:
        self.spec = _judged(spec)


def check(spec: JobSpec) -> None:
    """Raise `SpecError` with all problems of a spec."""
    CheckedSpec(spec)


def _judged(spec: JobSpec) -> JobSpec:
    # Check for a writable workspace first: whatever else is wrong, the refusal must have exactly
    # the words of `WritableWorkspace`.
    if isinstance(spec, JobSpec) and spec.writable_workspace:
        raise WritableWorkspace
    spec = check_form(spec)
    raise_all(broken_rules(spec))
    return spec


def broken_rules(spec: JobSpec) -> Iterator[SpecError]:
    """The problems of a spec that its types do not rule out."""
    yield from _check_command(spec.command)
    yield from _check_processes(spec)
    yield from _check_memory(spec.memory)
    yield from _check_env(spec.env)
    yield from _check_secrets(spec)
    for index, glob in enumerate(spec.artifacts):
        yield from _check_glob(f"artifacts[{index}]", glob, "/artifacts", "reports/**/*.xml")
    for index, glob in enumerate(spec.junit):
        yield from _check_glob(f"junit[{index}]", glob, "/artifacts", "junit.xml")
    for key in ("description", "workspace_deps", "workspace_build", "nix_store"):
        value = getattr(spec, key)
        yield from _check_text(key, value if isinstance(value, str) else "")
    yield from _check_mounts(spec.mounts)
    for index, glob in enumerate(spec.sources or ()):
        yield from _check_glob(f"sources[{index}]", glob, "the workspace", "src/**/*.py")
    yield from _check_output(spec)
    yield from check_egress(spec.egress, spec.network)
    if spec.host_mirrors and not spec.egress and spec.network == "none":
        yield SpecError(
            "host_mirrors",
            "has no use in a job that reaches nothing outside",
            allowed="with egress or a network",
        )


def check_form(spec: JobSpec) -> JobSpec:
    """A copy of the spec, as read back from a journal; `SpecError` if it cannot be stored as one.

    Needed because constructors accept values of any type.
    """
    if not isinstance(spec, JobSpec):
        raise SpecError(
            "", f"{type(spec).__name__} is not a JobSpec", allowed="JobSpec(command=...)"
        )
    for key in spec.__struct_fields__:
        try:
            msgspec.json.encode(getattr(spec, key))
        except UnicodeEncodeError:
            raise SpecError(key, "is not Unicode", allowed="text that is UTF-8") from None
        except TypeError as error:
            raise SpecError(key, f"cannot be stored: {error}") from None
    document = msgspec.to_builtins(spec)
    raise_all(mistakes(document, JobSpec))
    stored = msgspec.convert(document, JobSpec)
    for key in spec.__struct_fields__:
        if getattr(stored, key) != (value := getattr(spec, key)):
            raise SpecError(key, f"has the wrong type: {type(value).__name__}")
    return stored


def _check_text(key: str, value: str) -> Iterator[SpecError]:
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in value):
        yield SpecError(key, "has a control character", allowed="printable text on one line")


def _check_command(command: str) -> Iterator[SpecError]:
    if not command.strip():
        yield SpecError("command", "is empty", allowed="a shell command")
    if "\0" in command:
        yield SpecError("command", "has a NUL byte", allowed="any text without NUL")
    size = len(command.encode())
    if size > MAX_COMMAND_BYTES:
        yield SpecError(
            "command",
            f"has {size} bytes, which is too long to pass to the guest",
            allowed=f"at most {MAX_COMMAND_BYTES} bytes; put long scripts into the workspace",
        )


def _check_processes(spec: JobSpec) -> Iterator[SpecError]:
    # Checked here and not in the field's range: journals hold older specs with fewer.
    if spec.processes < MIN_PROCESSES and spec.instance_type is InstanceType.CONTAINER:
        yield SpecError(
            "processes",
            f"{spec.processes} is too few: the guest itself needs about 20",
            allowed=f"{MIN_PROCESSES} to 1000000",
        )


def _check_memory(memory: str) -> Iterator[SpecError]:
    # Checked here for the same reason.
    if size_in_bytes(memory) < size_in_bytes(MIN_MEMORY):
        yield SpecError(
            "memory",
            f"{memory} is too little: the guest itself needs some",
            allowed=f"{MIN_MEMORY} or more",
        )


def _check_env(env: dict[str, str]) -> Iterator[SpecError]:
    for name, value in env.items():
        key = f"env.{name}"
        yield from _check_variable_name(key, name)
        if "\0" in value:
            yield SpecError(key, "has a NUL byte", allowed="any text without NUL")
        if (size := size_of(name, value)) > MAX_VARIABLE_BYTES:
            yield SpecError(
                key,
                f"has {size} bytes with its name, which is too long to pass to the command",
                allowed=f"at most {MAX_VARIABLE_BYTES} bytes; put long values into a file",
            )
    if (size := total_size(env)) > MAX_BYTES:
        yield SpecError(
            "env",
            f"has {size} bytes in total, which is too much to pass to the command",
            allowed=f"at most {MAX_BYTES} bytes, with their names; put long values into files",
        )


def _check_secrets(spec: JobSpec) -> Iterator[SpecError]:
    for name, source in spec.secrets.items():
        key = f"secrets.{name}"
        yield from _check_variable_name(key, name)
        if name in spec.env:
            yield SpecError(key, "is also in `env`", allowed="each name in one of the two")
        if (source.env is None) == (source.file is None):
            problem = "has no source" if source.env is None else "has two sources"
            yield SpecError(key, problem, allowed='{ env = "NAME" } or { file = "/path" }')
        if source.file is not None:
            yield from _check_text(f"{key}.file", source.file)
            if not source.file.startswith("/"):
                yield SpecError(
                    f"{key}.file", f"{source.file!r} is not absolute", allowed="an absolute path"
                )


def _check_variable_name(key: str, name: str) -> Iterator[SpecError]:
    if refused := refusal(name):
        problem, allowed = refused
        yield SpecError(key, problem, allowed=allowed)


def _check_glob(key: str, glob: str, below: str, example: str) -> Iterator[SpecError]:
    yield from _check_text(key, glob)
    if not glob or glob.startswith("/") or ".." in glob.split("/"):
        yield SpecError(
            key, f"{glob!r} is not a glob below {below}", allowed=f"for example `{example}`"
        )


def _check_mounts(mounts: tuple[Mount, ...]) -> Iterator[SpecError]:
    taken: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        key = f"mounts[{index}].path"
        if isinstance(mount.source, str):
            yield from _check_text(f"mounts[{index}].source", mount.source)
        yield from _check_text(key, mount.path)
        path = mount.path.rstrip("/")
        wrong = list(_check_guest_path(key, mount.path, "/mnt/data"))
        yield from wrong
        if not wrong and path in taken:
            yield SpecError(
                key,
                f"{mount.path!r} is also the path of mounts[{taken[path]}]",
                allowed="one mount per path",
            )
        taken[path] = index


def _check_guest_path(key: str, written: str, example: str) -> Iterator[SpecError]:
    """What is wrong with a guest path of the user's own."""
    path = written.rstrip("/")
    reserved = [one for one in RESERVED_PATHS if _covers(one, path) or _covers(path, one)]
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path:
        yield SpecError(
            key,
            f"{written!r} is not a plain absolute path",
            allowed="an absolute guest path without `.`, `..` or empty parts",
        )
    elif reserved:
        yield SpecError(
            key,
            f"{written!r} collides with {reserved[0]}, which belongs to the guest",
            allowed=f"a path of your own, for example {example}",
        )


def _check_output(spec: JobSpec) -> Iterator[SpecError]:
    if spec.output is None:
        if spec.max_age_secs is not None:
            yield SpecError("max_age_secs", "is given without an `output`", allowed="both")
        return
    if spec.secrets:
        # Everybody who can use the output could read what the job wrote of them.
        yield SpecError(
            "secrets",
            "a job with an `output` may have none: the output could hold their values",
            allowed="a job of its own for what needs them, without an `output`",
        )
    yield from _check_text("output", spec.output)
    path = spec.output.rstrip("/")
    if spec.output == IMAGE:
        return
    if path.startswith(f"{ARTIFACTS}/") and posixpath.normpath(path) == path:
        return
    wrong = list(_check_guest_path("output", spec.output, "/venv"))
    yield from (
        SpecError(
            "output",
            problem.brief,
            allowed=f'"{IMAGE}", a directory below {ARTIFACTS}, or a path of your own: /venv',
        )
        for problem in wrong
    )
    for index, mount in enumerate(spec.mounts):
        at = mount.path.rstrip("/")
        if not wrong and (_covers(at, path) or _covers(path, at)):
            yield SpecError(
                "output",
                f"{spec.output!r} is where mounts[{index}] is, which is read-only",
                allowed="a directory that the job can write to",
            )


def _covers(parent: str, path: str) -> bool:
    return path == parent or path.startswith(f"{parent}/")
