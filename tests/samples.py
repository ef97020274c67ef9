"""Shared samples: specs, plan contexts, events, and hypothesis strategies for them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from orchestrator.attempt.archive import CollectedFile, Manifest, write_manifest
from orchestrator.attempt.plan import PlanContext
from orchestrator.incus import Host
from states import events as ev
from states.errors import IllegalEvent
from states.lifecycle import State, destination
from states.outcome import Failure, FailureKind, Outcome
from states.spec import InstanceType, JobSpec, Mount, SecretSource

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FAILURE = Failure(kind=FailureKind.INFRASTRUCTURE, phase="submitted", message="the daemon is gone")


def sample_shell_job(**changes: Any) -> JobSpec:
    """A plain job; `changes` are other values for its fields."""
    return msgspec.structs.replace(JobSpec(command="make test"), **changes)


def leave_artifacts(attempt: Path, files: dict[str, bytes]) -> None:
    """An attempt's directory as if these files had been collected."""
    for name, content in files.items():
        path = attempt / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    collected = tuple(
        CollectedFile(path=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    )
    write_manifest(attempt, Manifest(files=collected, refused=(), problem=""))


def sample_remote_context(**changes: Any) -> PlanContext:
    """Where and as what a sample job is planned."""
    context = PlanContext(
        host=Host(),
        owner="0wner",
        run="r",
        job="r.1",
        name="job",
        attempt=1,
        snapshot="/state/snapshots/abc",
        commit="c0ffee",
        fingerprint="f" * 64,
        lease_ends=BEGAN + timedelta(hours=1),
    )
    return msgspec.structs.replace(context, **changes)


OUTPUT = ev.OutputRef(key="e" * 64, job="q.1", at=BEGAN, unkeyed=("egress",))


def sample_event(kind: type[ev.Event], seq: int, *, job: str = "r.1", **changes: Any) -> Any:
    """An event of this type; one second passes from each to the next."""
    fields: dict[type[ev.Event], dict[str, Any]] = {
        ev.Submitted: {
            "run": "r",
            "name": "lint",
            "spec": sample_shell_job(),
            "workspace": "/src",
            "snapshot": ev.SnapshotRef(hash="abc", commit="c0ffee", dirty=False),
            "contract": 1,
        },
        ev.Rejected: {
            "run": "r",
            "name": "lint",
            "spec": sample_shell_job(writable_workspace=True),
            "workspace": "/src",
            "failure": msgspec.structs.replace(FAILURE, kind=FailureKind.CONFIG, phase="new"),
        },
        ev.ArtifactsReset: {"artifacts": "/state/jobs/r.1/attempt-1"},
        ev.DevicesConfigured: {
            "instance": "pikaci-x",
            "image": ev.ImageRef(alias="pikaci/dev", fingerprint="f" * 64),
        },
        ev.Reused: {"output": OUTPUT},
        ev.Skipped: {
            "failure": msgspec.structs.replace(FAILURE, kind=FailureKind.SKIPPED),
            "because": "r.2",
        },
        ev.ResultCollected: {"outcome": Outcome.PASSED, "exit_code": 0, "message": "test passed"},
        ev.Retried: {"failure": FAILURE, "delay_secs": 2.0},
        ev.Lost: {"failure": FAILURE, "member": "m1"},
        ev.CancelRequested: {"reason": "interrupted"},
        ev.Cancelled: {"failure": msgspec.structs.replace(FAILURE, kind=FailureKind.CANCELLED)},
        ev.Failed: {"failure": FAILURE},
    }
    times = {"at": BEGAN + timedelta(seconds=seq), "monotonic": 100.0 + seq}
    return kind(job=job, seq=seq, **{**times, **fields.get(kind, {}), **changes})


PATH = (
    ev.Submitted,
    ev.ArtifactsReset,
    ev.DevicesConfigured,
    ev.InstanceReady,
    ev.Running,
    ev.ResultCollected,
)


def sample_life(*kinds: type[ev.Event]) -> list[Any]:
    """Events of these types, numbered from 1; without any, those of a job that passed."""
    life: list[Any] = []
    before, state = State.NEW, State.NEW
    for seq, kind in enumerate(kinds or PATH, start=1):
        event = sample_event(kind, seq)
        if isinstance(event, ev.Retried | ev.Lost | ev.Failed | ev.Cancelled):
            # As it is written: in the state that the job was in when it arose.
            phase = before if kind is ev.Cancelled else state
            failure = msgspec.structs.replace(event.failure, phase=phase)
            event = msgspec.structs.replace(event, failure=failure)
        life.append(event)
        with suppress(IllegalEvent):
            before, state = state, destination(state, kind)
    return life


def sample_note(kind: type[ev.Note] = ev.Called, *, job: str = "r.1") -> Any:
    """A note: by default, of a call."""
    times = {"job": job, "at": BEGAN, "monotonic": 100.5}
    if kind is ev.Called:
        return ev.Called(
            v=2, effect="start", argv=("incus", "start"), duration_ms=140.0, exit_code=0, **times
        )
    if kind is ev.Waited:
        return ev.Waited(what=ev.WaitFor.PLACE, duration_ms=200.0, after="r.2", **times)
    if kind is ev.OutputMissing:
        return ev.OutputMissing(key="e" * 64, reason="the command changed", **times)
    if kind is ev.UnknownNote:
        body = msgspec.json.encode({"type": "felt", "how": {"deep": 1}, **times})
        return ev.UnknownNote(kind="felt", body=body, **times)
    if kind is ev.Connected:
        return ev.Connected(host="a.example", port=443, received_bytes=7, duration_ms=1.5, **times)
    if kind is ev.EgressGap:
        return ev.EgressGap(duration_ms=1500.0, cut=1, late=0, **times)
    if kind is ev.Warned:
        return ev.Warned(message="careful", **times)
    more: dict[str, Any] = {} if kind is ev.LeaseEnded else {"deadline": BEGAN}
    if kind is ev.LeaseClaimed:
        more["attempt"] = 1
    return kind(instance="pikaci-x", **times, **more)


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
_SECRETS = st.sampled_from([SecretSource(env="HOST"), SecretSource(file="/run/é")])
_DIRECTORY = st.none() | st.sampled_from(["/deps", "/a b", "/é"])


def specs(*, writable: bool | None = None) -> st.SearchStrategy[JobSpec]:
    """Specs of every shape that pass `check`, but for a writable workspace."""
    flags = st.booleans() if writable is None else st.just(writable)
    return st.builds(
        JobSpec,
        command=st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
        ).filter(str.strip),
        timeout_secs=st.integers(1, 604_800),
        run_as_root=st.booleans(),
        writable_workspace=flags,
        description=_TEXT,
        image=st.sampled_from(["pikaci/dev", "mine", "f" * 64]),
        instance_type=st.sampled_from(InstanceType),
        cpus=st.integers(1, 64),
        memory=st.sampled_from(["512MiB", "4GiB"]),
        disk=st.sampled_from(["1GiB", "20GB"]),
        processes=st.integers(64, 9999),
        network=st.sampled_from(["none", "incusbr0"]),
        scratch=st.booleans(),
        env=st.dictionaries(st.sampled_from(["A", "PATH", "_x1"]), _TEXT, max_size=2),
        secrets=st.dictionaries(st.sampled_from(["TOKEN", "_k"]), _SECRETS, max_size=2),
        artifacts=st.lists(st.sampled_from(["a", "b/**", "*.xml"]), max_size=2).map(tuple),
        workspace_deps=_DIRECTORY,
        workspace_build=_DIRECTORY,
        nix_store=_DIRECTORY,
        mounts=st.sampled_from([(), (Mount(source="/s", path="/mnt/data"),)]),
        retries=st.integers(0, 10),
        priority=st.integers(-100, 100),
        host=st.sampled_from((None, "local")),
    ).flatmap(
        # Without a network a job may have a way out.
        lambda spec: st.sampled_from(
            [(), ("*",), ("a.example", "*.b.example:8080", "10.0.0.1")]
        ).map(
            lambda egress: (
                msgspec.structs.replace(spec, egress=egress) if spec.network == "none" else spec
            )
        )
    )


def valid_specs() -> st.SearchStrategy[JobSpec]:
    """Specs that `check` lets through."""
    return specs(writable=False)


def lives() -> st.SearchStrategy[list[Any]]:
    """Legal lives: every prefix of each way through the table that has at most one retry."""
    before = PATH[1:4]
    ways = [PATH, (ev.Rejected,)]
    for reached in range(1, 6):
        ways.append((*PATH[:reached], ev.Failed))
        ways.append((*PATH[:reached], ev.CancelRequested, ev.Cancelled))
    for reached in range(1, len(before) + 1):
        ways.append((ev.Submitted, *before[:reached], ev.Retried, *PATH[1:]))
    for reached in range(2, 6):
        ways.append((*PATH[:reached], ev.Lost, *PATH[1:]))
    return st.sampled_from(ways).flatmap(
        lambda way: st.integers(1, len(way)).map(lambda upto: sample_life(*way[:upto]))
    )
