"""How late the lines of one job are seen while its neighbour prints as fast as it can.

    python -m tests.benchmarks.neighbour [MEGABYTES] [--fake]

On the real Incus, or on the fake one. A job prints the time five times a second; a follower, and a
reader that looks at the file ten times a second (as `pikaci logs -f` does), say how old each line is
when they see it. First alone, and then beside the flood, of 2,500 MB if not said otherwise.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from orchestrator import Capacity, JobHandle, JobSpec, Orchestrator, Settings
from orchestrator.fake_incus import FakeIncus, GuestCommand, GuestOutcome
from orchestrator.incus import Incus
from states.lifecycle import State

LINES, EVERY_SECS = 50, 0.2


async def guest(command: GuestCommand) -> GuestOutcome:
    """The two jobs on the fake."""
    what, _, size = command.text.partition(" ")
    if what == "flood":
        piece = (b"x" * 99 + b"\n") * 655
        for _ in range(int(size) // len(piece)):
            command.print(piece)
            await trio.lowlevel.checkpoint()
    else:
        for _ in range(LINES):
            command.print(b"%f\n" % time.time())
            await trio.sleep(EVERY_SECS)
    return GuestOutcome(exit_code=0)


@asynccontextmanager
async def opened(base: Path, *, fake: bool) -> AsyncIterator[Orchestrator]:
    (base / "workspace").mkdir()
    settings = Settings(base / "workspace", base / "root", Capacity(jobs=4))
    if not fake:
        async with Orchestrator.open(settings) as orchestrator:
            yield orchestrator
        return
    async with FakeIncus.open(guest_script=guest) as daemon:
        incus = Incus(base / "conf", spawn=daemon)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            yield orchestrator


def ages(data: bytes) -> list[float]:
    """How old the times of the whole lines are."""
    now = time.time()
    return [now - float(line) for line in data.split(b"\n")[:-1] if line[:1].isdigit()]


async def followed(job: JobHandle) -> list[float]:
    found: list[float] = []
    rest = b""
    async for chunk in job.log():
        rest += chunk
        found += ages(rest)
        rest = rest.rpartition(b"\n")[2]
    return found


async def polled(job: JobHandle) -> list[float]:
    found: list[float] = []
    path = await job.fetch_directory() / "guest.log"
    seen = 0
    while not (await job.fetch()).ended:
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        found += ages(data[seen:whole])
        seen = whole
        await trio.sleep(0.1)
    return found


async def measured(orchestrator: Orchestrator, what: str, command: str) -> None:
    job = await orchestrator.submit(JobSpec(command=command))
    found: dict[str, list[float]] = {}

    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            found["followed"] = await followed(job)

        async def poll() -> None:
            found["polled"] = await polled(job)

        nursery.start_soon(follow)
        nursery.start_soon(poll)
    for name, secs in found.items():
        print(f"{what}, {name}: {len(secs)} lines, the latest after {max(secs):.2f} s")


async def main(megabytes: int, fake: bool) -> None:
    lines = f"for i in $(seq {LINES}); do date +%s.%N; sleep {EVERY_SECS}; done"
    flood = f"yes 0123456789012345678901234567890123456789 | head -c {megabytes}000000"
    if fake:
        lines, flood = "lines", f"flood {megabytes}000000"
    with tempfile.TemporaryDirectory() as name:
        async with opened(Path(name), fake=fake) as orchestrator:
            await measured(orchestrator, "alone", lines)
            neighbour = await orchestrator.submit(JobSpec(command=flood))
            while (await neighbour.fetch()).state is not State.RUNNING:
                await trio.sleep(0.05)
            began = time.perf_counter()
            await measured(orchestrator, "beside a flood", lines)
            ended = (await neighbour.fetch()).ended
            log = await neighbour.fetch_directory() / "guest.log"
            size = log.stat().st_size / 1e6
            print(
                f"the flood {'had ended' if ended else 'went on'} by then:"
                f" {size:.0f} MB in {time.perf_counter() - began:.0f} s"
            )
            await neighbour.cancel(now=True)


if __name__ == "__main__":
    numbers = [argument for argument in sys.argv[1:] if argument.isdigit()]
    trio.run(main, int(numbers[0]) if numbers else 2500, "--fake" in sys.argv)
