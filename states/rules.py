"""The rules of a job's spec, for new specs only.

`CheckedSpec` repeats what decoding checks, for specs constructed in Python (constructors do not
validate), and adds the rules that span fields. Nothing here looks at a disk or a daemon: the
orchestrator finds out whether a directory exists.

Recorded specs are history: `states.recorded` reads them whatever today's rules are.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final

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
from states.guest_paths import ARTIFACTS, check_guest_path, covers
from states.mistakes import mistakes, raise_all
from states.spec import IMAGE, InstanceType, JobSpec, Mount, size_in_bytes

MAX_COMMAND_BYTES = 131_000  # the kernel passes at most 131,071 bytes in one argument
# systemd, the runner and the execs in a guest need up to 20, threads included.
MIN_PROCESSES = 64
# Tried: with less than 16 MiB the runner cannot say how a job ended, with less than 32 MiB a guest
# with systemd does not boot.
MIN_MEMORY = "64MiB"


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
    if spec.keep_secs is not None and spec.keep is None:
        yield SpecError("keep_secs", "is given without `keep`", allowed='keep = "failure" with it')
    yield from check_egress(spec.egress, spec.network)
    if spec.host_mirrors and not spec.egress and spec.network == "none":
        yield SpecError(
            "host_mirrors",
            "has no effect: the job has no egress and no network",
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
        wrong = list(check_guest_path(key, mount.path, "/mnt/data"))
        yield from wrong
        if not wrong and path in taken:
            yield SpecError(
                key,
                f"{mount.path!r} is also the path of mounts[{taken[path]}]",
                allowed="one mount per path",
            )
        taken[path] = index


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
    wrong = list(check_guest_path("output", spec.output, "/venv"))
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
        if not wrong and (covers(at, path) or covers(path, at)):
            yield SpecError(
                "output",
                f"{spec.output!r} is where mounts[{index}] is, which is read-only",
                allowed="a directory that the job can write to",
            )
