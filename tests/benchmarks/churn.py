"""How creates slow down when many guests come and go: `python -m tests.benchmarks.churn [GUESTS]`.

On the real Incus and pikaci's pool, four at once. Compares the last tenth with the first: a pool
whose deletes keep pace has a ratio near 1.
"""

from __future__ import annotations

import statistics
import sys
import time

import trio

from orchestrator.settings import open_incus
from tests.calls import call

AT_ONCE = 4


async def main(guests: int) -> None:
    incus = open_incus()
    slots = trio.CapacityLimiter(AT_ONCE)
    took: list[float] = []

    async def one(number: int) -> None:
        async with slots:
            name = incus.name(f"churn-{number}")
            began = time.monotonic()
            limit = ("--no-profiles", "--storage", "pikaci", "--device", "root,size=2GiB")
            await call(
                incus,
                "create",
                "--quiet",
                *limit,
                incus.name("pikaci/dev"),
                name,
                deadline_secs=600,
            )
            took.append(time.monotonic() - began)
            await call(incus, "delete", "--quiet", "--force", name, deadline_secs=600)

    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number in range(guests):
            nursery.start_soon(one, number)
    total = time.monotonic() - began
    tenth = max(guests // 10, 1)
    first, last = statistics.median(took[:tenth]), statistics.median(took[-tenth:])
    print(
        f"{guests} guests in {total:.1f} s; a create: {first:.2f} s at first, {last:.2f} s at last,"
    )
    print(f"ratio {last / first:.1f}")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if sys.argv[1:] else 200)
