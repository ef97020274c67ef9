"""What a warm guest saves: `python -m tests.benchmarks.warm [ROUNDS]`, on the real Incus.

In each round, one after the other: an exec in a guest that runs, a job that makes its guest, and a
job that finds a warm one. Shows the time from the submission until somebody who follows the log sees
the command's own output; of the exec, until its first byte is here.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from orchestrator import Capacity, JobSpec, Orchestrator, Settings, WarmGuests
from orchestrator.settings import open_incus
from tests.benchmarks.bench.ours import first_output
from tests.calls import call

SPEC = JobSpec(command="echo first")
FIRST = 2  # rounds that do not count: caches, and the first guest of the pool
READY_SECS = 60.0


class Jobs:
    """Jobs of one orchestrator."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator

    async def wait_warm(self) -> None:
        """Return when a warm guest is there, and nothing else is being made."""
        with trio.fail_after(READY_SECS):
            while not self._orchestrator.statistics().warm:
                await trio.sleep(0.05)

    async def run(self, *, warm: bool) -> float:
        """Seconds from the submission to the first byte."""
        began = time.monotonic()
        handle = await self._orchestrator.submit(SPEC)
        first = await first_output(handle)
        job = await handle.wait()
        assert (job.warm_ms is not None) == warm, job
        with trio.fail_after(READY_SECS):  # what comes after the job is not part of the next one
            while any(lease.job for lease in self._orchestrator.journal.open_leases()):
                await trio.sleep(0.05)
        return first - began


@asynccontextmanager
async def running_guest() -> AsyncIterator[str]:
    incus = open_incus()
    name = incus.name("pikaci-bench-warm")
    options = ("--no-profiles", "--storage", "pikaci", "--device", "root,size=2GiB")
    await call(incus, "launch", "-q", *options, incus.name(SPEC.image), name, deadline_secs=60)
    try:
        yield name
    finally:
        with trio.CancelScope(shield=True):
            await call(incus, "delete", "-q", "--force", name, deadline_secs=60)


async def bare_exec(guest: str) -> float:
    """The least that any job needs: one exec, to its first byte."""
    began = time.monotonic()
    first: list[float] = []

    async def sink(chunk: bytes) -> None:
        first.append(time.monotonic() - began)

    command = ("exec", "--force-noninteractive", guest, "--", "echo", "first")
    await call(open_incus(), *command, sink=sink, deadline_secs=60)
    return first[0]


def shown(name: str, took: list[float]) -> float:
    median = statistics.median(took)
    print(
        f"{name:12} {median * 1000:6.0f} ms, from {min(took) * 1000:.0f} to {max(took) * 1000:.0f}"
    )
    return median


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pikaci-bench-") as base:
        workspace = Path(base, "workspace")
        workspace.mkdir()
        (workspace / "hello.txt").write_text("hello\n")

        def settings(name: str, warm: WarmGuests | None = None) -> Settings:
            root = Path(base, name)
            return Settings(workspace, state_root=root, capacity=Capacity(jobs=2), warm=warm)

        async with (
            running_guest() as guest,
            Orchestrator.open(settings("cold")) as makes,
            Orchestrator.open(settings("warm", WarmGuests(size=1))) as keeps,
        ):
            cold, warm = Jobs(makes), Jobs(keeps)
            await warm.run(warm=False)
            took = []
            for _ in range(FIRST + rounds):
                await warm.wait_warm()
                took.append(
                    (await bare_exec(guest), await cold.run(warm=False), await warm.run(warm=True))
                )
    names = ("a bare exec", "a cold job", "a warm job")
    columns = [list(column) for column in zip(*took[FIRST:], strict=True)]
    bare, of_cold, of_warm = map(shown, names, columns)
    print(f"{rounds} rounds: warm {of_cold / of_warm:.1f}x faster than cold,")
    print(f"and {of_warm / bare:.1f}x a bare exec")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if sys.argv[1:] else 20)
