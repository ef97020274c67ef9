"""A run: some jobs of one workspace, from their specs to their verdicts."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator import locks
from orchestrator.contract import contract
from orchestrator.image.store import Images
from orchestrator.job_task import JobTask
from orchestrator.snapshot import Snapshot, publish
from orchestrator.sweep import sweep
from orchestrator.workbench import Workbench, now
from states import events as ev
from states.errors import SpecError
from states.job import fold
from states.outcome import Failure, FailureKind
from states.spec import JobSpec, check

_RUN_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True)
class Request:
    """What to run. `specs` are checked job specs by name; `parallel` how many at once.

    `include` are globs of git-ignored files that the snapshot takes along.
    """

    workspace: Path
    specs: Mapping[str, JobSpec]
    parallel: int
    include: tuple[str, ...] = ()


def new_run_id() -> str:
    """A short random name for a run, easy to read aloud."""
    return "".join(secrets.choice(_RUN_ALPHABET) for _ in range(8))


async def run_jobs(
    bench: Workbench, request: Request, *, run: str, started: Callable[[Snapshot], None]
) -> None:
    """Run the jobs to their ends; the journal says how they ended.

    When one of them must be rejected, the rejected ones are recorded and nothing runs.
    `started` hears of the snapshot before the first job begins. When cancelled, every job is
    ended before this raises.
    """
    refusals = {name: refusal(spec) for name, spec in request.specs.items()}
    rejected = [
        _rejection(request, run, number, name, error)
        for number, (name, error) in enumerate(refusals.items(), start=1)
        if error is not None
    ]
    if rejected:
        await bench.journal.append(*rejected)
        return
    with locks.hold_run(bench.root.locks, run):
        snapshot = await publish(
            request.workspace,
            bench.root.snapshots,
            exclude=(bench.root.path,),
            include=request.include,
            owner=(contract().user.uid, contract().user.gid),
        )
        started(snapshot)
        await _run_all(bench, request, run, snapshot)


def refusal(spec: JobSpec) -> SpecError | None:
    """Why a spec is refused, or None."""
    try:
        check(spec)
    except SpecError as error:
        return error
    return None


def _rejection(request: Request, run: str, number: int, name: str, error: SpecError) -> ev.Rejected:
    return ev.Rejected(
        job=f"{run}.{number}",
        seq=1,
        run=run,
        name=name,
        spec=request.specs[name],
        workspace=str(request.workspace),
        failure=Failure(
            kind=FailureKind.CONFIG, phase="new", message=error.brief, resolution=error.resolution
        ),
        **now(),
    )


async def _run_all(bench: Workbench, request: Request, run: str, snapshot: Snapshot) -> None:
    submitted = [
        ev.Submitted(
            job=f"{run}.{number}",
            seq=1,
            run=run,
            name=name,
            spec=spec,
            workspace=str(request.workspace),
            snapshot=ev.SnapshotRef(
                hash=snapshot.hash, commit=snapshot.commit, dirty=snapshot.dirty
            ),
            contract=contract().version,
            **now(),
        )
        for number, (name, spec) in enumerate(request.specs.items(), start=1)
    ]
    await bench.journal.append(*submitted)
    images = Images(bench.incus)
    slots = trio.CapacityLimiter(request.parallel)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweep, bench)
        for event in submitted:
            task = JobTask(bench, fold([event]), str(snapshot.path), images, slots)
            nursery.start_soon(task.run)
