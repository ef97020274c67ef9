"""gc and outputs: each is kept as long as a run that made or used it, and by whoever looks at it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator import Capacity, JobSpec, Orchestrator, Request, Verdict
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.journal import open_journal, read_journal
from orchestrator.outputs.building import Building
from orchestrator.outputs.store import OutputRecord, OutputStore
from orchestrator.session import gc_outputs, locks
from orchestrator.session.gc import Bounds, Freed, collect_garbage
from orchestrator.state_root import StateRoot
from orchestrator.testing import open_fake
from states.lifecycle import State
from states.spec import OutputOf
from tests.samples import BEGAN
from tests.unit.orchestrator.gc_ground import Ground
from tests.unit.orchestrator.rig import open_rig

KEY = "e" * 64
DEPS = JobSpec(command="make", output="/artifacts/out", sources=())
TEST = JobSpec(command="use", workspace_deps=OutputOf("deps"))


async def script(command: GuestCommand) -> GuestOutcome:
    if command.text == "make":
        command.write("/artifacts/out/file", b"x" * 100_000)
    if command.text == "use":
        command.read("/staged/linux-rust/workspace-deps/file")
    return GuestOutcome(exit_code=0)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    root = StateRoot(tmp_path / "root")
    root.make()
    with open_journal(root.journal) as journal:
        yield Ground(root, journal)


def publish(root: StateRoot, run: str, *, key: str = KEY, size: int = 0) -> OutputRecord:
    """An output that the first job of a run made."""
    store = OutputStore(root.outputs)
    new = store.begin(run)
    (new / "tree" / "file").write_bytes(b"x" * size)
    record = OutputRecord(
        key=key, job=f"{run}.1", name="deps", workspace="/src", at=BEGAN, parts={}, size=size
    )
    store.publish(new, record, run)
    return record


def names(root: StateRoot) -> list[str]:
    return sorted(os.listdir(root.outputs)) if root.outputs.is_dir() else []


async def test_an_output_goes_with_the_last_run_that_used_it(ground: Ground) -> None:
    """The maker's own run may be gone long before; a dry run says the same."""
    for run in ("maker", "user", "other"):
        await ground.run(run)
    record = publish(ground.root, "maker", size=50_000)
    OutputStore(ground.root.outputs).use(record, "user")

    first = ground.gc(runs=2)
    kept = names(ground.root)
    planned = ground.gc(runs=1, dry_run=True)
    there = names(ground.root)
    done = ground.gc(runs=1)

    assert (1, 0) == (first.runs, first.outputs)
    assert [record.directory] == kept == there
    assert planned == done
    assert 1 == done.outputs
    assert done.size > 50_000
    assert [] == names(ground.root)


async def test_outputs_count_for_the_size(ground: Ground) -> None:
    """Once, however many runs use one; and no run goes for an output that stays."""
    for run in ("a", "b", "c"):
        await ground.run(run)
    shared = publish(ground.root, "a", size=500_000)
    OutputStore(ground.root.outputs).use(shared, "b")

    none = ground.gc(size=600_000)
    done = ground.gc(size=400_000)

    assert (0, 0) == (none.runs, none.outputs)
    assert (2, 1) == (done.runs, done.outputs)
    assert ["c"] == ground.runs


async def test_an_unfinished_run_keeps_its_outputs(ground: Ground) -> None:
    """Its jobs may use them at any moment."""
    await ground.run("unfinished", upto=3)
    record = publish(ground.root, "unfinished")

    ground.gc(runs=0)

    assert [record.directory] == names(ground.root)


async def test_an_output_that_a_job_looks_at_is_kept(ground: Ground) -> None:
    """It has the key's lock while it decides, and so has one that makes the same."""
    await ground.run("old")
    record = publish(ground.root, "old")

    async with Building(ground.root.outputs).alone(record.key):
        meanwhile = ground.gc(runs=0)
        kept = names(ground.root)
    done = ground.gc(runs=0)

    assert (0, 1) == (meanwhile.outputs, done.outputs)
    assert record.directory in kept
    assert [] == names(ground.root)


async def test_an_output_that_was_used_since_gc_looked_is_kept(ground: Ground) -> None:
    """Then a run needs it that gc does not know, or that it knows and did not look for."""
    await ground.run("old")
    record = publish(ground.root, "old")
    seen = gc_outputs.output_users(ground.root.outputs)
    OutputStore(ground.root.outputs).use(record, "new")
    problems: list[str] = []

    moved = gc_outputs.set_outputs_aside(seen, problems)

    assert ({}, []) == (moved, problems)
    assert record.directory in names(ground.root)


async def test_a_use_after_gc_finds_nothing(ground: Ground) -> None:
    """So the job makes it anew."""
    await ground.run("old")
    record = publish(ground.root, "old")
    store = OutputStore(ground.root.outputs)
    gc_outputs.set_outputs_aside(gc_outputs.output_users(ground.root.outputs), [])

    assert store.find(KEY) is None
    with pytest.raises(FileNotFoundError):
        store.use(record, "new")


async def test_leftovers_of_dead_makers_go(ground: Ground) -> None:
    """Unfinished outputs, what a killed gc renamed, and locks that nobody holds."""
    await ground.run("old")
    store = OutputStore(ground.root.outputs)
    dead, living = store.begin("dead-2"), store.begin("living-3")
    (ground.root.outputs / ".old-1").mkdir()
    (ground.root.outputs / f".lock-{KEY}").touch()
    held = ground.root.outputs / f".lock-{'d' * 64}"
    with locks.hold_run(ground.root.locks, "living"), held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        dry = ground.gc(runs=0, dry_run=True)
        before = names(ground.root)
        done = ground.gc(runs=0)
        after = names(ground.root)

    assert dead.name in before
    assert [held.name, living.name] == after
    assert (dry.outputs, done.outputs, done.problems) == (0, 0, ())


async def test_runs_that_come_and_go_under_gc_always_have_their_input(tmp_path: Path) -> None:
    """gc as often as it can, with no run to keep: no job ever lacks an output."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    makers: list[State] = []
    ended: list[Verdict | None] = []
    freed: list[Freed] = []
    async with (
        open_rig(tmp_path / "root", guest_script=script) as rig,
        trio.open_nursery() as nursery,
    ):

        def collect() -> None:
            with read_journal(rig.context.root.journal) as journal:
                bounds = Bounds(runs=0)
                freed.append(collect_garbage(rig.context.root, journal, bounds, dry_run=False))

        async def sweep() -> None:
            while True:
                await trio.to_thread.run_sync(collect)

        async def run() -> None:
            # A session of its own, so that it may go as soon as this has read how it ended.
            async with Orchestrator.over(rig.context, Capacity(jobs=2)) as orchestrator:
                request = Request(workspace, {"deps": DEPS, "test": TEST})
                jobs = await (await orchestrator.submit_run(request)).wait()
                makers.append(jobs[0].state)
                ended.extend(job.verdict for job in jobs)

        async def runs() -> None:
            for number in range(1, 201):
                await run()
                # Outputs of other runs must have been deleted meanwhile, or this proves nothing.
                if number >= 8 and sum(one.outputs for one in freed) > 1:
                    return

        nursery.start_soon(sweep)
        async with trio.open_nursery() as others:
            for _ in range(3):
                others.start_soon(runs)
        nursery.cancel_scope.cancel()

    assert {Verdict.PASSED} == set(ended)
    assert {State.RESULT_COLLECTED} <= set(makers) <= {State.RESULT_COLLECTED, State.REUSED}
    assert sum(one.outputs for one in freed) > 1
    assert not any(one.problems for one in freed)


@pytest.mark.parametrize("all_parts", [True, False])
async def test_a_run_keeps_the_snapshot_that_its_jobs_saw_parts_of(
    tmp_path: Path, all_parts: bool
) -> None:
    """`pikaci rerun` takes the parts from it."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "file").write_text("1")
    specs = {"deps": DEPS} if all_parts else {"deps": DEPS, "test": TEST}
    async with open_fake(guest_script=script) as (orchestrator, _):
        handle = await orchestrator.submit_run(Request(workspace, specs))
        deps = (await handle.wait())[0]
        collect_garbage(orchestrator.root, orchestrator.journal, Bounds(runs=5), dry_run=False)
        kept = set(os.listdir(orchestrator.root.snapshots))

    assert deps.snapshot is not None
    assert {deps.snapshot.hash, deps.snapshot.whole} == kept
