"""Which runs garbage collection deletes, and what they share with others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.journal import JobRow, JournalError
from orchestrator.journal.reader import JournalReader
from orchestrator.session.disk_usage import SharedUsage, disk_usage
from orchestrator.state_root import StateRoot
from states import events as ev


@dataclass(frozen=True)
class Bounds:
    """A run is deleted when it exceeds one of these; None is no bound.

    `runs` is how many runs to keep; `age` the maximum time since a run's last job ended; `size` the
    maximum bytes on disk of all job directories, snapshots and outputs, where a file that several
    snapshots have counts once. `damaged`: delete also runs with a job that cannot be read.
    """

    runs: int | None = None
    age: timedelta | None = None
    size: int | None = None
    damaged: bool = False


@dataclass(frozen=True)
class Run:
    """A run in the journal; `settled` if its jobs and their leases have ended.

    `shared` are the names of the snapshots and outputs that it uses. `ended_at` is when its last
    job entered its state, None if that is not known; `size` is in bytes.
    """

    id: str
    directories: Mapping[str, Path]  # by job
    shared: frozenset[str]
    ended_at: datetime | None
    settled: bool
    size: int


def with_unreadable_jobs(journal: JournalReader, runs: Sequence[Run]) -> list[str]:
    """The ids of runs with a job that cannot be read."""
    rows = {run.id: journal.jobs(run=run.id) for run in runs}
    return [run for run, jobs in rows.items() if any(journal.look(row).damage for row in jobs)]


def read_runs(
    root: StateRoot,
    journal: JournalReader,
    outputs: Mapping[Path, frozenset[str]],
    *,
    damaged: bool,
    ending: Collection[str] = (),
) -> list[Run]:
    """All runs, the oldest first; `outputs` are those there are, each with the runs that use it.

    With `damaged`, jobs that cannot be read count as ended. So do the leases of the instances
    `ending`.
    """
    used: dict[str, set[str]] = {}
    for path, users in outputs.items():
        for user in users:
            used.setdefault(user, set()).add(path.name)
    open_jobs = {lease.job for lease in journal.open_leases() if lease.instance not in ending}
    open_jobs |= {
        row.id for row in journal.unfinished() if not (damaged and journal.look(row).damage)
    }
    return [
        _run(root, run, rows, open_jobs, used.get(run, set()) | _whole(journal, rows[0].id))
        for run, rows in journal.runs().items()
    ]


def _run(
    root: StateRoot,
    run: str,
    jobs: Sequence[JobRow],
    open_jobs: Collection[str],
    shared: Iterable[str],
) -> Run:
    times = [job.moved for job in jobs if job.moved is not None]
    # A damaged journal may hold any name; only a plain one is a directory of ours.
    plain = all(
        re.fullmatch(r"[a-z0-9]+(-[0-9]+)?(\.[0-9]+)?", id) for id in (run, *(j.id for j in jobs))
    )
    directories = {job.id: root.path / "jobs" / job.id for job in jobs} if plain else {}
    return Run(
        id=run,
        directories=directories,
        shared=frozenset((*(job.snapshot for job in jobs if job.snapshot), *shared)),
        ended_at=max(times, default=None),
        settled=plain and not any(job.id in open_jobs for job in jobs),
        size=sum(map(disk_usage, directories.values())),
    )


def _whole(journal: JournalReader, job: str) -> set[str]:
    """The snapshot that the job's own is a part of, which `pikaci rerun` needs."""
    with suppress(JournalError):
        for _, first in journal.entries(job, limit=1):
            if isinstance(first, ev.Submitted) and first.snapshot.whole:
                return {first.snapshot.whole}
    return set()


def beyond(
    bounds: Bounds, runs: Sequence[Run], free: Collection[str], usage: SharedUsage
) -> list[Run]:
    """The runs to delete, out of the `free` ones; `usage` is that of what runs share."""
    first = 0 if bounds.runs is None else len(runs) - bounds.runs
    oldest = datetime.now(UTC) - bounds.age if bounds.age is not None else None
    going = [
        run
        for number, run in enumerate(runs)
        if run.id in free and (number < first or _is_older(run, oldest))
    ]
    if bounds.size is None:
        return going
    gone = {run.id for run in going}
    left = [run for run in runs if run.id not in gone]
    users = Counter(name for run in left for name in run.shared)
    jobs = sum(run.size for run in left)
    for run in left:
        if jobs + usage.of(+users) <= bounds.size:
            break
        if run.id in free:
            going.append(run)
            users.subtract(run.shared)
            jobs -= run.size
    return going


def _is_older(run: Run, oldest: datetime | None) -> bool:
    return oldest is not None and run.ended_at is not None and run.ended_at < oldest
