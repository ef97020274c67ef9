"""What may go from a state root: old runs that have ended, and snapshots that nobody names."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import groupby

from orchestrator import locks
from orchestrator.journal import Journal
from orchestrator.settings import StateRoot


@dataclass(frozen=True)
class Freed:
    """How many of each were, or would be, deleted."""

    runs: int
    jobs: int
    snapshots: int


def collect_garbage(root: StateRoot, journal: Journal, *, keep: int, dry_run: bool) -> Freed:
    """Delete all but the newest `keep` runs, and every snapshot that no kept job names.

    Spared are runs that a living process holds, jobs that have not ended, and jobs with an open
    lease. Files go before the journal forgets them: a crash in between leaves nothing unknown.
    While any run is alive no snapshot goes, as it may be about to use one.
    """
    leased = {lease.job for lease in journal.open_leases()}
    runs = [list(rows) for _, rows in groupby(journal.jobs(), key=lambda row: row.run)]
    old = [
        rows
        for rows in runs[: max(0, len(runs) - keep)]
        if all(row.ended and row.id not in leased for row in rows)
        and not locks.is_held(root.locks, rows[0].run)
    ]
    going = [row for rows in old for row in rows]
    gone = {row.id for row in going}
    snapshots = []
    if not any(locks.is_held(root.locks, path.name) for path in root.locks.iterdir()):
        kept = [journal.job(row.id).snapshot for rows in runs for row in rows if row.id not in gone]
        named = {snapshot.hash for snapshot in kept if snapshot}
        snapshots = [path for path in root.snapshots.iterdir() if path.name not in named]
    if not dry_run:
        for row in going:
            shutil.rmtree(root.path / "jobs" / row.id, ignore_errors=True)
        journal.forget([row.id for row in going])
        for path in snapshots:
            shutil.rmtree(path, ignore_errors=True)
    return Freed(runs=len(old), jobs=len(going), snapshots=len(snapshots))
