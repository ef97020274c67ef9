"""Requests for runs: checks them, and makes the first event of each job."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.contract import contract
from orchestrator.errors import KeyTaken, UsageError
from orchestrator.host_paths import DIRECTORY_KEYS, directories
from orchestrator.hosts import HERE, HostChoice
from orchestrator.incus import LOCAL, Host
from orchestrator.job.placing import Told, keep_images_together, keep_to_directories
from orchestrator.journal.stamp import boot_id, now
from orchestrator.snapshot.snapshot import Snapshot
from states import events as ev
from states.errors import SpecError
from states.graph import broken_references, needed
from states.job import Job
from states.mistakes import one_of, raise_all
from states.outcome import Failure, FailureKind
from states.rules import CheckedSpec, check_form
from states.spec import NAME_ALLOWED, NAME_PATTERN, JobSpec, Mount

MAX_KEY = 200  # characters of an idempotency key


@dataclass(frozen=True)
class Request:
    """A request to run jobs of one workspace. `specs` are by name.

    `include` are globs of git-ignored files to put into the snapshot, `exclude` of files to leave
    out. With `git`, the snapshot gets a `.git` made by pikaci. The outputs of the jobs `fresh` are
    made anew. With `fail_fast` the run stops at the first job that does not pass. `key` makes
    repeated requests one submission, "" for none. A given `snapshot` is used as it is; otherwise
    the workspace is published. `hosts` are the names of the hosts for jobs that name none; by
    default those of the orchestrator. `asked` is a hash of the request, to detect a different
    request with the same key; `as_sent` sets it. A run that is `held` is cancelled by its service
    when nobody is connected for it.
    """

    workspace: Path
    specs: Mapping[str, JobSpec]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    fail_fast: bool = False
    key: str = ""
    snapshot: Snapshot | None = None
    asked: str = ""
    git: bool = False
    hosts: tuple[str, ...] = ()
    held: bool = False


@dataclass(frozen=True)
class Judged:
    """A request whose specs were checked. If one is refused, nothing runs.

    If none is refused, the specs have the real paths of their host directories. `hosts` are those
    that each job may run on, at least one, in the order of preference; `told` says why others were
    left out.
    """

    request: Request
    checked: Mapping[str, CheckedSpec]
    refused: Mapping[str, SpecError]
    hosts: Mapping[str, tuple[Host, ...]] = field(default_factory=dict)
    told: Told = field(default_factory=dict)


def judge(request: Request, choice: HostChoice = HERE) -> Judged:
    """Check the specs of a request for jobs on these hosts. Every submission goes through this.

    Raises `UsageError` or `SpecError` for what a journal could not store even as rejected.
    """
    _check_names(request)
    request = as_sent(request)
    checked: dict[str, CheckedSpec] = {}
    refused: dict[str, SpecError] = {}
    hosts: dict[str, tuple[Host, ...]] = {}
    told: Told = {}
    for name, spec in request.specs.items():
        try:
            checked[name] = CheckedSpec(spec)
            hosts[name] = choice.of(spec)
        except SpecError as error:
            check_form(spec)
            refused[name] = error
    _check_fresh(request)
    if not refused:
        by_job: dict[str, list[SpecError]] = {}
        for name, wrong in broken_references(request.specs):
            by_job.setdefault(name, []).append(wrong)
        refused = {name: one_of(errors) for name, errors in by_job.items()}
    if not refused:
        told = keep_to_directories(request.specs, hosts)
        refused = keep_images_together(request.specs, hosts, told)
    if not refused:
        checked = {
            name: _with_real_paths(spec) if hosts[name][0].is_local else spec
            for name, spec in checked.items()
        }
        request = replace(request, specs={name: spec.spec for name, spec in checked.items()})
    return Judged(request, checked, refused, hosts, told)


def part_of(judged: Judged, names: Iterable[str]) -> Judged:
    """The request with some of its jobs."""
    checked = {name: judged.checked[name] for name in names}
    specs = {name: one.spec for name, one in checked.items()}
    return replace(judged, request=replace(judged.request, specs=specs), checked=checked)


def with_output(specs: Mapping[str, JobSpec]) -> tuple[str, ...]:
    """The names of the jobs that have an output."""
    return tuple(name for name, spec in specs.items() if spec.output is not None)


def _check_fresh(request: Request) -> None:
    there = with_output(request.specs)
    for name in request.fresh:
        if name not in there:
            what = "has no `output`" if name in request.specs else "is not in this run"
            raise UsageError(
                f"the job {name!r} has nothing to rebuild: it {what}",
                resolution=f"jobs with an output: {', '.join(there)}"
                if there
                else "no job of this run has an output",
            )


def _check_names(request: Request) -> None:
    if not request.specs:
        raise UsageError("there are no jobs to submit", resolution="submit at least one")
    for name in request.specs:
        if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
            raise UsageError(
                f"{name!r} is not a valid job name",
                resolution=f"allowed: {NAME_ALLOWED}",
            )
    texts = [("workspace", str(request.workspace)), ("key", request.key)]
    for what, text in [*texts, *(("glob", glob) for glob in (*request.include, *request.exclude))]:
        if not isinstance(text, str) or not _is_unicode(text):
            raise UsageError(f"the {what} {text!r} is not Unicode", resolution="rename it")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def real_path(workspace: Path) -> Path:
    """The real path of the workspace, for the journal: it is valid in any working directory."""
    try:
        return Path(os.path.realpath(workspace))
    except ValueError:
        return workspace  # it contains a NUL, so it does not exist


def _with_real_paths(checked: CheckedSpec) -> CheckedSpec:
    """The spec with the real paths of its host directories, as Incus requires.

    `SpecError` for paths that are not absolute or not a directory. A spec with changed paths is
    checked again.
    """
    spec = checked.spec
    raise_all(
        SpecError(
            key,
            f"{value!r} is not a directory on this host",
            allowed="the absolute path of an existing directory",
        )
        for key, value in directories(spec)
        if not os.path.isabs(value) or not os.path.isdir(value)
    )
    changed = {
        key: os.path.realpath(value)
        for key in DIRECTORY_KEYS
        if isinstance(value := getattr(spec, key), str)
    }
    mounts = tuple(
        Mount(os.path.realpath(mount.source), mount.path)
        if isinstance(mount.source, str)
        else mount
        for mount in spec.mounts
    )
    real_spec = msgspec.structs.replace(spec, mounts=mounts, **changed)
    return checked if real_spec == spec else CheckedSpec(real_spec)


def rejections(judged: Judged, run: str) -> list[ev.Rejected]:
    """The events of the refused jobs; if there are any, nothing of the run is started."""
    return [
        ev.Rejected(
            job=f"{run}.{number}",
            seq=1,
            run=run,
            name=name,
            spec=spec,
            workspace=str(judged.request.workspace),
            boot=boot_id(),
            failure=Failure(
                kind=FailureKind.CONFIG,
                phase="new",
                message="\n".join(filter(None, (error.headline, error.details))),
                resolution=error.resolution,
            ),
            **now(),
        )
        for number, (name, spec) in enumerate(judged.request.specs.items(), start=1)
        if (error := judged.refused.get(name)) is not None
    ]


def submissions(
    judged: Judged,
    run: str,
    snapshot: Snapshot,
    parts: Mapping[tuple[str, ...], Snapshot],
) -> list[ev.Submitted]:
    """The first events of the run's jobs, which see `snapshot`, or the part of it for them.

    `parts` are by the jobs' `sources`.
    """
    request = judged.request
    ids = {name: f"{run}.{number}" for number, name in enumerate(judged.checked, start=1)}

    def seen(spec: JobSpec) -> ev.SnapshotRef:
        if spec.sources is not None:
            return ev.SnapshotRef(hash=parts[spec.sources].hash, whole=snapshot.hash)
        return snapshot.ref

    return [
        ev.Submitted(
            job=ids[name],
            seq=1,
            run=run,
            name=name,
            spec=checked.spec,
            workspace=str(request.workspace),
            boot=boot_id(),
            snapshot=seen(checked.spec),
            needs={one: ids[one] for one in needed(checked.spec)},
            fresh=name in request.fresh,
            fail_fast=request.fail_fast,
            contract=contract().version,
            key=request.key,
            asked=request.asked,
            held=request.held,
            **_place([host.name for host in judged.hosts[name]]),
            **now(),
        )
        for name, checked in judged.checked.items()
    ]


def _place(hosts: Sequence[str]) -> dict[str, Any]:
    if len(hosts) > 1:
        return {"hosts": tuple(hosts)}
    return {"host": "" if hosts[0] == LOCAL else hosts[0]}


def as_sent(request: Request) -> Request:
    """The request with the real path of its workspace and, if it has a key, its hash."""
    request = replace(request, workspace=real_path(request.workspace))
    if not request.key:
        return request
    asked = {field.name: getattr(request, field.name) for field in fields(request)}
    del asked["key"], asked["asked"], asked["held"]
    for added in ("exclude", "git", "fresh", "fail_fast", "hosts"):
        if not asked[added]:
            del asked[added]  # so that requests hash as they did before there was such a key
    if request.snapshot is not None:
        # The same for what describes its commit: it is no part of the request. The other fields
        # keep their order, which those of a dict would not.
        seen = msgspec.to_builtins(request.snapshot, enc_hook=str)
        del seen["subject"], seen["branch"]
        asked["snapshot"] = msgspec.Raw(msgspec.json.encode(seen))
    encoded = msgspec.json.encode(asked, enc_hook=str, order="deterministic")
    return replace(request, asked=hashlib.sha256(encoded).hexdigest())


def check_same(request: Request, submitted: ev.Submitted, jobs: Iterable[Job]) -> None:
    """Raise `KeyTaken` if the request's key was used for another: `submitted`, with `jobs`."""
    if submitted.asked:
        same = submitted.asked == request.asked
    else:
        there = {job.name: (job.spec, job.workspace) for job in jobs}
        here = judge(request).request
        same = there == {name: (spec, str(here.workspace)) for name, spec in here.specs.items()}
    if not same:
        raise KeyTaken(
            f"the key {request.key!r} was used for another submission",
            resolution="use a new key for other jobs, or send the same jobs again",
        )
