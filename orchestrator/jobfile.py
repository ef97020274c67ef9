"""The job file: `pikaci.toml`, jobs as data.

A problem with it is one `UsageError` that names the file, the key and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.errors import NoJobs, UsageError
from orchestrator.host_paths import DIRECTORY_KEYS, MountRule
from orchestrator.units import size
from states.errors import SpecError
from states.spec import NAME_PATTERN, JobSpec, SecretSource, check, from_validation_error

SCHEMA = 1
MAX_BYTES = 1 << 20
TOP_LEVEL = ("schema", "defaults", "jobs", "snapshot")
# Tables whose keys are merged when [defaults] and a job both have them.
_MERGED = ("env", "secrets", "deadlines")


@dataclass(frozen=True)
class JobFile:
    """A parsed job file. Host paths in the specs are real and absolute.

    `include` are globs of git-ignored files to put into the snapshot. `jobs` can contain a job that
    asks for a writable workspace: it is rejected when it is run.
    """

    path: Path
    jobs: Mapping[str, JobSpec]
    include: tuple[str, ...]


def load(path: Path, *, mount_rule: MountRule | None = None) -> JobFile:
    """Read a job file. Raises `UsageError`, or `NoJobs` if it has no jobs.

    `mount_rule` says which host directories its jobs may mount.
    """
    document = _parse(path, _read(path))
    _no_unknown(path, "", document, TOP_LEVEL)
    if document.get("schema") != SCHEMA or isinstance(document["schema"], bool):
        raise _bad(path, "schema", f"is {_got(document, 'schema')}", f"schema = {SCHEMA}")
    defaults = _table(path, "defaults", document.get("defaults", {}))
    tables = _table(path, "jobs", document.get("jobs", {}))
    if not tables:
        raise NoJobs(
            f"{path}: there are no jobs", resolution='add one: [jobs.NAME] command = "..."'
        )
    _decoded(path, "defaults", {"command": "true", **defaults})
    jobs = {
        name: _job(path, name, defaults, table, mount_rule or MountRule())
        for name, table in tables.items()
    }
    return JobFile(path, jobs, _include(path, document.get("snapshot", {})))


def select(job_file: JobFile, names: Sequence[str]) -> dict[str, JobSpec]:
    """The named jobs in the order given, without duplicates; all jobs if no name is given."""
    unknown = [name for name in names if name not in job_file.jobs]
    if unknown:
        near = difflib.get_close_matches(unknown[0], job_file.jobs, n=3)
        raise UsageError(
            f"{job_file.path}: there is no job {unknown[0]!r}",
            resolution=f"did you mean {' or '.join(near)}?"
            if near
            else f"the jobs are: {', '.join(job_file.jobs)}",
        )
    return {name: job_file.jobs[name] for name in names or job_file.jobs}


def _bad(path: Path, key: str, problem: str, allowed: str = "") -> UsageError:
    where = f"{path}: {key}" if key else f"{path}:"
    return UsageError(f"{where} {problem}", resolution=f"allowed: {allowed}" if allowed else "")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such job file",
            resolution="write one, name another with --file, or use `pikaci run -- COMMAND`",
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise _bad(path, "", f"has more than {size(MAX_BYTES)}", "a smaller job file")
    return data


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _bad(path, "", f"is not UTF-8: line {line}", "a TOML file in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise _bad(path, "", f"is not TOML: {error}", "see https://toml.io") from None
    except ValueError as error:  # a number of more than 4300 digits
        raise _bad(path, "", f"is not TOML: {str(error).partition(';')[0]}", "numbers") from None
    except RecursionError:
        raise _bad(path, "", "is nested too deeply", "see https://toml.io") from None


def _table(path: Path, key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(path, key, f"is {_shown(value)}", f"a table: [{key}]")
    return value


def _no_unknown(path: Path, prefix: str, table: dict[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise _bad(path, f"{prefix}{key}", f"is an unknown key{hint}", ", ".join(sorted(known)))


def _job(
    path: Path, name: str, defaults: dict[str, Any], table: object, mount_rule: MountRule
) -> JobSpec:
    key = f"jobs.{name}"
    if not re.fullmatch(NAME_PATTERN, name):
        raise _bad(
            path,
            f"jobs.{name!r}",
            "is not a valid job name",
            "letters, digits and ._/-, at most 128",
        )
    own = _table(path, key, table)
    merged = {
        field: {**defaults[field], **own[field]}
        for field in _MERGED
        if isinstance(defaults.get(field), dict) and isinstance(own.get(field), dict)
    }
    spec = _with_real_paths(path, key, _decoded(path, key, {**defaults, **own, **merged}))
    if not spec.writable_workspace:
        try:
            check(spec)
            mount_rule.check(spec)
        except SpecError as error:
            raise _bad(path, f"{key}.{error.key}", error.brief, error.resolution) from None
    return spec


def _decoded(path: Path, key: str, table: dict[str, Any]) -> JobSpec:
    _no_unknown(path, f"{key}.", table, JobSpec.__struct_fields__)
    try:
        return msgspec.convert(table, JobSpec)
    except msgspec.ValidationError as error:
        found = from_validation_error(error)
        # Do not print the value: it may be a secret written in place of its source.
        secret = found.key.partition(".")[0] == "secrets"
        got = "" if secret else _got(table, found.key)
        raise _bad(
            path, f"{key}.{found.key}", f"{found.brief}{f', got {got}' if got else ''}",
            found.resolution,
        ) from None  # fmt: skip
    except UnicodeEncodeError:
        raise _bad(path, key, "has text that is not Unicode", "a TOML file in UTF-8") from None


def _with_real_paths(path: Path, key: str, spec: JobSpec) -> JobSpec:
    """Resolve host paths relative to the job file; directories to real paths, as Incus requires.

    The path of a secret's file is only made absolute: the file need not exist yet, and may be a
    link that changes.
    """
    base = path.absolute().parent

    def real(field: str, value: str) -> str:
        directory = base / value
        try:
            resolved = directory.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            resolved = directory
        if "\0" in value or not os.path.isdir(resolved):
            raise _bad(
                path, f"{key}.{field}", f"{value!r} is not a directory", "an existing directory"
            )
        return str(resolved)

    changed: dict[str, Any] = {
        field: real(field, value)
        for field in DIRECTORY_KEYS
        if (value := getattr(spec, field)) is not None
    }
    changed["mounts"] = tuple(
        msgspec.structs.replace(mount, source=real(f"mounts[{index}].source", mount.source))
        for index, mount in enumerate(spec.mounts)
    )
    changed["secrets"] = {
        name: source if source.file is None else SecretSource(source.env, str(base / source.file))
        for name, source in spec.secrets.items()
    }
    return msgspec.structs.replace(spec, **changed)


def _include(path: Path, value: object) -> tuple[str, ...]:
    table = _table(path, "snapshot", value)
    _no_unknown(path, "snapshot.", table, ("include",))
    globs = table.get("include", [])
    if not isinstance(globs, list) or not all(isinstance(glob, str) and glob for glob in globs):
        raise _bad(path, "snapshot.include", f"is {_shown(globs)}", "a list of globs")
    return tuple(globs)


def _got(table: dict[str, Any], key: str) -> str:
    """The value at a key, for a message; empty if not found."""
    value: Any = table
    for part in re.findall(r"[^.\[\]]+", key):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return "missing" if table is value else ""
    return _shown(value)


def _shown(value: object) -> str:
    text = repr(value).replace("True", "true").replace("False", "false")
    return text if len(text) <= 60 else f"{text[:57]}..."
