"""The job file: `pikaci.toml`, jobs as data.

All problems with it are one `UsageError`, a line each: file, key, what is wrong, what is allowed.
"""

from __future__ import annotations

import codecs
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.errors import NoJobs, UsageError
from orchestrator.host_paths import MountRule, directories
from orchestrator.hosts import HostChoice
from orchestrator.job_names import matching
from orchestrator.mount_points import missing_places
from orchestrator.units import size
from states.errors import SpecError, mistake_lines
from states.graph import broken_references, with_needed
from states.mistakes import mistakes, shown_value, unknown_keys
from states.rules import broken_rules
from states.spec import NAME_ALLOWED, NAME_PATTERN, JobSpec, SecretSource

SCHEMA = 1
MAX_BYTES = 1 << 20
TOP_LEVEL = ("schema", "defaults", "jobs", "snapshot")
_GLOBS = ("include", "exclude")  # keys of [snapshot]
# Tables whose keys are merged when [defaults] and a job both have them.
_MERGED = ("env", "secrets", "deadlines")


@dataclass(frozen=True)
class JobFile:
    """A parsed job file. Host paths in the specs are absolute.

    `include` are globs of git-ignored files to put into the snapshot, `exclude` of files to leave
    out. With `git`, the snapshot gets a `.git` made by pikaci. `jobs` can contain a job that asks
    for a writable workspace: it is rejected when it is run.
    """

    path: Path
    jobs: Mapping[str, JobSpec]
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    git: bool = False


def load(path: Path) -> JobFile:
    """Read a job file. Raises `UsageError`, or `NoJobs` if it has no jobs.

    Only the file is looked at: the directories that its jobs mount need not exist.
    """
    return check(path, _parse(path, read_file(path)))


def check(path: Path, document: dict[str, Any]) -> JobFile:
    """The job file that was read as this document, from a file or as if it were there."""
    found = [*_wrong_schema(path, document), *unknown_keys(document, TOP_LEVEL)]
    defaults = _table(document, "defaults", "defaults", found)
    tables = _table(document, "jobs", "jobs", found)
    snapshot = _table(document, "snapshot", "snapshot", found)
    found += mistakes({"command": "true", **defaults}, JobSpec, "defaults")
    sound_defaults = not any(mistake.key.startswith("defaults") for mistake in found)
    jobs: dict[str, JobSpec] = {}
    for name in tables:
        key = f"jobs.{name}"
        own = _table(tables, name, key, found)
        wrong = list(_wrong_name(name))
        if isinstance(tables[name], dict):
            wrong += _wrong_form(key, own, defaults)
        if not wrong and sound_defaults and own is tables[name]:
            jobs[name] = _spec(path, defaults, own)
            wrong = list(_wrong_values(key, jobs[name], own))
        found += wrong
    found += _wrong_snapshot(snapshot)
    if not found:
        found += [wrong.below(f"jobs.{name}") for name, wrong in broken_references(jobs)]
    refuse(path, found)
    if not jobs:
        raise NoJobs(
            f"{path}: there are no jobs", resolution='add one: [jobs.NAME] command = "..."'
        )
    include, exclude = (tuple(snapshot.get(key, ())) for key in _GLOBS)
    return JobFile(path, jobs, include, exclude, snapshot.get("git", False))


def select(
    job_file: JobFile,
    names: Sequence[str],
    *,
    mount_rule: MountRule | None = None,
    choice: HostChoice | None = None,
) -> dict[str, JobSpec]:
    """The named jobs in the order given, without duplicates; all jobs if no name is given.

    A name with `*`, `?` or `[` is a glob: all jobs that match it, in the order of the file. Jobs
    that a named one needs come before it, named or not. The host directories of these jobs get
    their real paths, as Incus requires. Raises `UsageError` if a job, a directory, or the `host` of
    a job does not exist, a glob matches nothing, or `mount_rule` refuses a directory. The jobs run
    on the hosts of `choice`, by default that of the rule.
    """
    names = matching(names, job_file.jobs, job_file.path)
    rule = mount_rule or MountRule()
    choice = choice or HostChoice([rule.host])
    chosen: dict[str, JobSpec] = {}
    found: list[SpecError] = []
    for name in with_needed(job_file.jobs, names) if names else job_file.jobs:
        spec = chosen[name] = job_file.jobs[name]
        try:
            hosts = choice.of(spec)
        except SpecError as unknown:
            found.append(unknown.below(f"jobs.{name}"))
            continue
        if not any(host.is_local for host in hosts):
            there = MountRule(host=hosts[0])
            found += [wrong.below(f"jobs.{name}") for wrong in there.refused(spec)]
            continue
        spec = chosen[name] = _with_real_paths(job_file.jobs[name])
        if spec.writable_workspace:
            continue  # it is rejected by its own words
        existing = {key for key, path in directories(spec) if os.path.isdir(path)}
        for key, path in directories(spec):
            if key not in existing:
                found.append(
                    SpecError(
                        f"jobs.{name}.{key}",
                        f"{path!r} is not a directory",
                        allowed="an existing directory",
                    )
                )
        found += [
            wrong.below(f"jobs.{name}") for wrong in rule.refused(spec) if wrong.key in existing
        ]
        if len(existing) == len(directories(spec)):
            found += [wrong.below(f"jobs.{name}") for wrong in missing_places(spec)]
    refuse(job_file.path, found)
    return chosen


def refuse(path: Path, found: Sequence[SpecError]) -> None:
    """Raise the mistakes as one error, if there are any."""
    every = list({mistake.line(): mistake for mistake in found}.values())
    if not every:
        return
    lines = mistake_lines(every, f"{path}: ")
    if len(every) == 1:
        raise UsageError(lines)
    raise UsageError(f"{path} has {len(every)} mistakes", details=lines)


def bad(path: Path, problem: str, allowed: str) -> UsageError:
    """The error for a file that is no document at all."""
    return UsageError(f"{path}: {problem}; allowed: {allowed}")


def read_file(path: Path) -> bytes:
    """The bytes of a job file, at most `MAX_BYTES`; `UsageError` if they cannot be had."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such job file",
            resolution="`pikaci init` writes one; or name another with --file, or use"
            " `pikaci run -- COMMAND`",
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise bad(path, f"has more than {size(MAX_BYTES)}", "a smaller job file")
    return data


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    # Editors write a mark that others do not show; the other encodings all have NUL bytes here.
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise bad(path, "is not UTF-8, but UTF-16 or the like", "a TOML file saved as UTF-8")
    try:
        return tomllib.loads(data.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise bad(path, f"is not UTF-8: line {line}", "a TOML file in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise bad(path, f"is not TOML: {error}", "see https://toml.io") from None
    except ValueError as error:  # a number of more than 4300 digits
        raise bad(path, f"is not TOML: {str(error).partition(';')[0]}", "numbers") from None
    except RecursionError:
        raise bad(path, "is nested too deeply", "see https://toml.io") from None


def _wrong_schema(path: Path, document: dict[str, Any]) -> list[SpecError]:
    schema = document.get("schema")
    if schema == SCHEMA and not isinstance(schema, bool):
        return []
    if "schema" not in document:
        return [SpecError("schema", "is missing", allowed=f"schema = {SCHEMA}")]
    wrong = SpecError("schema", f"is {shown_value(schema)}", allowed=f"schema = {SCHEMA}")
    refuse(path, [wrong])  # in another schema the rest may mean something else
    return []


def _table(parent: dict[str, Any], name: str, key: str, found: list[SpecError]) -> dict[str, Any]:
    """The table of this name, empty where there is none; a mistake when it is something else."""
    value = parent.get(name, {})
    if isinstance(value, dict):
        return value
    found.append(SpecError(key, f"is {shown_value(value)}", allowed=f"a table: [{key}]"))
    return {}


def _wrong_name(name: str) -> Iterator[SpecError]:
    if not re.fullmatch(NAME_PATTERN, name):
        yield SpecError(f"jobs.{name!r}", "is not a valid job name", allowed=NAME_ALLOWED)


def _wrong_form(key: str, own: dict[str, Any], defaults: dict[str, Any]) -> list[SpecError]:
    command = {"command": "true"} if "command" in defaults else {}
    return mistakes({**command, **own}, JobSpec, key)


def _wrong_values(key: str, spec: JobSpec, own: dict[str, Any]) -> Iterator[SpecError]:
    """What the rules refuse, each at the table that it stands in."""
    if spec.writable_workspace:
        return
    for mistake in broken_rules(spec):
        field, name, *_ = [*re.findall(r"[^.\[\]]+", mistake.key), ""]
        its_own = field in own and (field not in _MERGED or not name or name in own[field])
        yield mistake.below(key if its_own else "defaults")


def _wrong_snapshot(table: dict[str, Any]) -> Iterator[SpecError]:
    yield from unknown_keys(table, (*_GLOBS, "git"), "snapshot")
    if not isinstance(git := table.get("git", False), bool):
        yield SpecError("snapshot.git", f"is {shown_value(git)}", allowed="true or false")
    for key in _GLOBS:
        globs = table.get(key, [])
        if not isinstance(globs, list) or not all(isinstance(glob, str) and glob for glob in globs):
            yield SpecError(
                f"snapshot.{key}", f"is {shown_value(globs)}", allowed="a list of globs"
            )


def _spec(path: Path, defaults: dict[str, Any], own: dict[str, Any]) -> JobSpec:
    """A job over the defaults, with absolute host paths: relative ones begin at the job file.

    The path of a secret's file is not resolved later either: it may be a link that changes.
    """
    merged = {
        field: {**defaults[field], **own[field]}
        for field in _MERGED
        if field in defaults and field in own
    }
    spec = msgspec.convert({**defaults, **own, **merged}, JobSpec)
    base = path.absolute().parent
    return _with_paths(
        spec,
        {key: str(base / value) for key, value in directories(spec)},
        secrets={
            name: source
            if source.file is None
            else SecretSource(source.env, str(base / source.file))
            for name, source in spec.secrets.items()
        },
    )


def _with_real_paths(spec: JobSpec) -> JobSpec:
    def real(path: str) -> str:
        try:
            return os.path.realpath(path, strict=True)
        except (OSError, ValueError):
            return path

    return _with_paths(spec, {key: real(path) for key, path in directories(spec)})


def _with_paths(spec: JobSpec, paths: Mapping[str, str], **changed: Any) -> JobSpec:
    """The spec with other host directories, each by its key."""
    mounts = tuple(
        msgspec.structs.replace(mount, source=paths.get(f"mounts[{index}].source", mount.source))
        for index, mount in enumerate(spec.mounts)
    )
    named = {key: path for key, path in paths.items() if not key.startswith("mounts[")}
    return msgspec.structs.replace(spec, mounts=mounts, **named, **changed)
