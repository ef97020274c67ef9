"""What commands print with `--output json`, where it is no job, run, trace or image."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from orchestrator.attempt.archive import CollectedFile, RefusedFile
from orchestrator.outputs.store import OutputRecord
from states.changes import Change, TestChanges
from states.lifecycle import State
from states.outcome import Verdict


class PlannedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One incus command of a job, as `argv`; `effect` is its name in traces."""

    effect: str
    argv: tuple[str, ...]
    deadline_secs: float


class PlannedJob(msgspec.Struct, frozen=True, kw_only=True):
    """What a job would do, from `pikaci run --dry-run`.

    `instance` is the document on the stdin of the first call, which creates the instance;
    `runner_stdin` is what the runner reads, without values of secrets. Values that only a real
    run knows are in angle brackets.
    """

    name: str
    image: str
    timeout_secs: int
    instance: msgspec.Raw
    calls: tuple[PlannedCall, ...]
    runner_stdin: tuple[str, ...]


class WrittenJobFile(msgspec.Struct, frozen=True, kw_only=True):
    """What `pikaci init` wrote, or would write with `--print`: the path, and its text.

    `kind` is what the project was taken for; `jobs` are by name, each with what it is for; `notes`
    say what was not understood.
    """

    file: str
    kind: str
    jobs: dict[str, str]
    notes: tuple[str, ...]
    text: str


class CancelledJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job after `pikaci cancel`. `had_ended` if there was nothing to cancel.

    `damaged` says that the job cannot be read; its state is then not known to be true.
    """

    id: str
    run: str
    name: str
    state: State
    verdict: Verdict | None
    had_ended: bool
    damaged: bool


class KeptGuest(msgspec.Struct, frozen=True, kw_only=True):
    """The guest of a job that is kept for debugging `until` then; `verdict` is the job's."""

    job: str
    name: str
    verdict: Verdict | None
    instance: str
    host: str
    until: datetime


class ReleasedGuest(msgspec.Struct, frozen=True, kw_only=True):
    """A kept guest that was to be deleted before its time."""

    job: str
    instance: str
    deleted: bool


class ReapedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that is not needed, and why. `problem` says why it could not be deleted."""

    instance: str
    reason: str
    deleted: bool
    problem: str = ""


class ReapReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `pikaci reap` did. `overdue` are jobs that it ended, or would with `dry_run`."""

    dry_run: bool
    overdue: tuple[str, ...]
    instances: tuple[ReapedInstance, ...]


class GcReport(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each `pikaci gc` deleted, or would with `dry_run`; `size` is in bytes.

    `problems` say what could not be deleted. `spared` are runs that were kept because one of their
    jobs cannot be read. `trees` are those on other hosts.
    """

    dry_run: bool
    runs: int
    jobs: int
    snapshots: int
    size: int
    problems: tuple[str, ...]
    spared: tuple[str, ...]
    outputs: int
    images: int
    trees: int


class OutputDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An output: `tree` or `image`, made by `job` at the time `at`; `size` is in bytes, of a tree.

    `name` and `workspace` are the job's. `unkeyed` is what the job could use that the key does not
    contain. `runs` made or used the output, at `last_use` for the last time.
    """

    key: str
    kind: str
    job: str
    name: str
    workspace: str
    at: datetime
    size: int
    entries: int
    fingerprint: str
    unkeyed: tuple[str, ...]
    runs: tuple[str, ...]
    last_use: datetime | None

    @classmethod
    def of(cls, record: OutputRecord, uses: Mapping[str, float]) -> OutputDocument:
        """The document of a record; `uses` are the times of runs' uses, in seconds."""
        last = max(uses.values(), default=None)
        return cls(
            key=record.key,
            kind="image" if record.fingerprint else "tree",
            job=record.job,
            name=record.name,
            workspace=record.workspace,
            at=record.at,
            size=record.size,
            entries=record.entries,
            fingerprint=record.fingerprint,
            unkeyed=record.unkeyed,
            runs=tuple(sorted(uses)),
            last_use=None if last is None else datetime.fromtimestamp(last, UTC),
        )


class SetupReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether anything was missing, and each step that `pikaci setup` took."""

    changed: bool
    steps: tuple[str, ...]


class ImageReport(msgspec.Struct, frozen=True, kw_only=True):
    """The image that an alias now names."""

    alias: str
    fingerprint: str


class ReplayedTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A trace that was replayed; `problem` says why it is not as recorded."""

    id: str = ""
    name: str = ""
    path: tuple[State, ...] = ()
    verdict: Verdict | None = None
    problem: str = ""


class DifferenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that both jobs spent in a state, or in an `effect` in it."""

    state: str
    effect: str
    one: float
    other: float
    notable: bool


class DifferenceReport(msgspec.Struct, frozen=True, kw_only=True):
    """Two jobs compared, by their ids.

    `changes` are what pikaci gave them that was not the same; `tests` the tests that differ, null
    if none does, or if a trace file does not say.
    """

    one: str
    other: str
    same_outcome: bool
    same_path: bool
    notable: bool
    rows: tuple[DifferenceRow, ...]
    changes: tuple[Change, ...] = ()
    tests: TestChanges | None = None


class ArtifactsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a job left. `directory` is absolute, on the host: the copy, if it was copied.

    `refused` are files that were not collected; `problem` says why others are missing.
    """

    job: str
    directory: str
    files: tuple[CollectedFile, ...]
    refused: tuple[RefusedFile, ...]
    problem: str
