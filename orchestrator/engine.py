"""A run: some jobs of one workspace, from their specs to their verdicts."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator import locks
from orchestrator.contract import contract
from orchestrator.errors import contained
from orchestrator.hold import listening
from orchestrator.image.store import Images
from orchestrator.incus_errors import DaemonUnreachable, IncusMissing
from orchestrator.job_task import JobTask
from orchestrator.snapshot import Snapshot, publish
from orchestrator.tending import tending
from orchestrator.workbench import Workbench, now
from states import events as ev
from states.errors import PikaciError, SpecError
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
    ended before this raises. Without a daemon to begin with, `DaemonUnreachable` or
    `IncusMissing`, and nothing was submitted. (One that goes away later is waited for.)
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
    with locks.share_root(bench.root.path), locks.hold_run(bench.root.locks, run):
        images = Images(bench.incus)
        async with trio.open_nursery() as nursery:
            # Beside the copying, which takes as long.
            nursery.start_soon(_look_up, images, [spec.image for spec in request.specs.values()])
            snapshot = await publish(
                request.workspace,
                bench.root.snapshots,
                exclude=(bench.root.path,),
                include=request.include,
                owner=(contract().user.uid, contract().user.gid),
            )
        started(snapshot)
        await _run_all(bench, request, run, snapshot, images)


async def _look_up(images: Images, aliases: Iterable[str]) -> None:
    for alias in dict.fromkeys(aliases):
        try:
            await images.find(alias)
        except (DaemonUnreachable, IncusMissing):
            raise
        except PikaciError:
            pass  # the jobs that want it tell of it


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


async def _run_all(
    bench: Workbench, request: Request, run: str, snapshot: Snapshot, images: Images
) -> None:
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
    faults: list[BaseException] = []
    slots = trio.CapacityLimiter(request.parallel)
    tasks = {event.job: JobTask(bench, fold([event]), images, slots) for event in submitted}
    async with (
        tending(bench, request.parallel),
        listening(bench.root.locks, run, tasks),
        trio.open_nursery() as nursery,
    ):
        for task in tasks.values():
            nursery.start_soon(contained, faults, task.run)
    if faults:
        raise faults[0]
