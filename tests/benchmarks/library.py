"""Figures of the library, on the fake Incus: `python -m tests.benchmarks.library`.

How long a submission takes until it is durable, events a second through readers, memory with
many jobs and slow readers, and a journal of a million entries.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from orchestrator import Capacity, JobSpec, Orchestrator, Request
from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from orchestrator.testing import open_fake
from states import events as ev
from tests.samples import sample_life, sample_note

SLEEPS = JobSpec(command="sleep 100000", timeout_secs=200_000)
QUEUED = 10_000
MILLION = 1_000_000


def rss_mib() -> float:
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@asynccontextmanager
async def busy() -> AsyncIterator[Orchestrator]:
    """An orchestrator whose one place is taken: what is submitted waits."""
    async with open_fake(capacity=Capacity(jobs=1), queue_jobs=2 * QUEUED) as (orchestrator, _):
        await orchestrator.submit(SLEEPS)
        yield orchestrator
        # Not all of them have to be cancelled for a figure.
        orchestrator.detach()


async def submitting(jobs: int) -> None:
    async with busy() as orchestrator:
        snapshot = await orchestrator.snapshot()
        times = []
        for _ in range(jobs):
            began = time.perf_counter()
            await orchestrator.submit(SLEEPS, snapshot=snapshot)
            times.append((time.perf_counter() - began) * 1000)
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"one after the other: {statistics.median(times):.2f} ms median, {p99:.2f} ms p99")

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(jobs):
                nursery.start_soon(lambda: orchestrator.submit(SLEEPS, snapshot=snapshot))
        print(f"at once, by {jobs} tasks: {jobs / (time.perf_counter() - began):.0f} jobs/s")


async def queued() -> None:
    async with busy() as orchestrator:
        workspace = orchestrator.root.path.parent / "workspace"
        snapshot = await orchestrator.snapshot()
        before, began = rss_mib(), time.perf_counter()
        for _ in range(QUEUED // 1000):
            specs = {f"job-{n}": SLEEPS for n in range(1000)}
            await orchestrator.submit_run(Request(workspace, specs, snapshot=snapshot))
        spent = time.perf_counter() - began
        await trio.testing.wait_all_tasks_blocked()
        print(
            f"{orchestrator.statistics().queued} queued jobs, in runs of 1000:"
            f" {QUEUED / spent:.0f} jobs/s, {before:.0f} MiB before, {rss_mib():.0f} MiB with them"
        )


async def reading(readers: int, entries: int, *, slow: bool = False) -> None:
    async with busy() as orchestrator:
        job = await orchestrator.submit(SLEEPS)
        notes = [
            msgspec.structs.replace(sample_note(ev.Called), job=job.id) for _ in range(entries)
        ]
        seen = 0
        done = trio.Event()

        async def read() -> None:
            nonlocal seen
            async for _ in job.entries():
                seen += 1
                if seen == readers * (entries + 1):
                    done.set()
                if slow:
                    await trio.sleep_forever()

        before = rss_mib()
        async with trio.open_nursery() as nursery:
            for _ in range(readers):
                nursery.start_soon(read)
            began = time.perf_counter()
            for start in range(0, entries, 100):
                await orchestrator.journal.append(*notes[start : start + 100])
            if slow:
                print(
                    f"{readers} slow readers of {entries} entries:"
                    f" {before:.0f} MiB before, {rss_mib():.0f} MiB with them"
                )
            else:
                await done.wait()
                spent = time.perf_counter() - began
                print(
                    f"{readers} reader{'s' * (readers > 1)}: {entries / spent:.0f} entries/s"
                    f" written, {seen / spent:.0f} entries/s read"
                )
            nursery.cancel_scope.cancel()


async def million(base: Path) -> None:
    root = StateRoot(base)
    root.make()
    notes = [sample_note(ev.Called) for _ in range(14)]
    life = [*sample_life(), *notes]
    with open_journal(root.journal) as journal:
        began = time.perf_counter()
        for run in range(MILLION // len(life) // 50):
            entries = []
            for number in range(50):
                job = f"r{run}.{number + 1}"
                for entry in life:
                    changes = {"job": job}
                    if isinstance(entry, ev.Submitted):
                        changes["run"] = f"r{run}"
                    entries.append(msgspec.structs.replace(entry, **changes))
            await journal.append(*entries)
        written = time.perf_counter() - began
        size = sum(path.stat().st_size for path in base.glob("journal*")) / 2**20
        rows = journal.jobs()
        began = time.perf_counter()
        for row in rows:
            journal.job(row.id)
        folded = time.perf_counter() - began
    began = time.perf_counter()
    subprocess.run(
        [Path(sys.executable).with_name("pikaci"), "list", "--state-root", base],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print(
        f"{len(rows) * len(life)} entries of {len(rows)} jobs: {size:.0f} MiB, written in"
        f" {written:.0f} s, all folded in {folded:.0f} s,"
        f" `pikaci list` {time.perf_counter() - began:.2f} s"
    )


def main() -> None:
    trio.run(submitting, 1000)
    trio.run(queued)
    trio.run(reading, 1, 100_000)
    trio.run(reading, 100, 2_000)
    trio.run(lambda: reading(100, 100_000, slow=True))
    with tempfile.TemporaryDirectory() as base:
        trio.run(million, Path(base))


if __name__ == "__main__":
    main()
