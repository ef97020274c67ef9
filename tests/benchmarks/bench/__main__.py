"""`python -m tests.benchmarks.bench [ROUNDS]`, or `... check OLD NEW`: see `make bench`."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import trio

import orchestrator
from tests.benchmarks.bench.plain import PROJECT, Lost
from tests.benchmarks.bench.report import Result, SideResult, markdown, svg, worse
from tests.benchmarks.bench.sides import Side, all_sides, base_directory
from tests.benchmarks.bench.start_up import memory, start_up

HERE = Path("docs/benchmarks")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_ONCE = (1, 2, 4, 8, 16)
RATES_OF = ("3 commands", "REST", "pikaci library")


def cpu_secs() -> float:
    """CPU time of this process and of all that it started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def job_name(side: Side, *numbers: int) -> str:
    """A name that no other job of this host has."""
    words = side.name.replace(",", "").split()
    return "-".join(map(str, (*words, *numbers, os.getpid())))


async def one_round(sides: list[Side], results: dict[str, SideResult], number: int) -> None:
    """Each side once; a side that cannot run is left out from then on. Round 0 warms up."""
    for turn in range(len(sides)):
        side = sides[(turn + number) % len(sides)]
        result = results[side.name]
        if result.failed:
            continue
        began = cpu_secs() + side.elsewhere()
        try:
            moments = await side.run(job_name(side, number))
        except Lost:
            moments = {}
            result.lost += 1
        except Exception as error:
            result.failed = f"{type(error).__name__}: {error}"[:300]
            continue
        if number:
            cpu = {"CPU": cpu_secs() + side.elsewhere() - began} if moments else {}
            result.rounds.append(moments | cpu)


async def jobs_a_minute(side: Side, result: SideResult, at_once: int) -> float:
    """How many jobs get a verdict in a minute when so many run at once."""
    limiter = trio.CapacityLimiter(at_once)
    jobs, lost = 4 + 2 * at_once, 0

    async def one(number: int) -> None:
        nonlocal lost
        async with limiter:
            try:
                await side.run(job_name(side, at_once, number))
            except Lost:
                lost += 1

    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number in range(jobs):
            nursery.start_soon(one, number)
    result.lost += lost
    return 60 * (jobs - lost) / (time.monotonic() - began)


def machine(rounds: int) -> dict[str, str]:
    """What the figures depend on."""
    versions = subprocess.run(["incus", "version"], capture_output=True, text=True, check=True)
    server = versions.stdout.rpartition(":")[2].strip()
    driver = subprocess.run(
        ["incus", "query", f"/1.0/storage-pools/{PROJECT}"],
        capture_output=True,
        check=True,
    )
    return {
        "processors": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB",
        "kernel": platform.release(),
        "Incus": server,
        "storage": str(msgspec.json.decode(driver.stdout)["driver"]),
        "Python": platform.python_version(),
        "pikaci": orchestrator.__version__,
        "rounds": str(rounds),
        "load at the end": f"{os.getloadavg()[0]:.1f}",
    }


async def measure(base: Path, rounds: int) -> Result:
    """All sides, round by round; then how many jobs a minute; then what processes cost."""
    async with all_sides(base) as sides:
        results = {side.name: SideResult(side.name, side.leaves_out) for side in sides}
        for number in range(rounds + 1):
            await one_round(sides, results, number)
        for at_once in AT_ONCE:
            for side in sides:
                result = results[side.name]
                if side.name in RATES_OF and not result.failed:
                    rate = await jobs_a_minute(side, result, at_once)
                    result.jobs_a_minute[at_once] = rate
    return Result(
        machine(rounds), list(results.values()), start_up(base, max(rounds, 5)), memory(base)
    )


async def main(base: Path, rounds: int) -> int:
    """Measure and write; the exit code. A signal stops it, and the guests are deleted all the same."""
    whole: Result | None = None
    async with trio.open_nursery() as nursery:

        async def stop_by_signal() -> None:
            with trio.open_signal_receiver(*SIGNALS) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(stop_by_signal)
        whole = await measure(base, rounds)
        nursery.cancel_scope.cancel()
    if whole is None:
        return 130
    HERE.mkdir(exist_ok=True)
    shown = msgspec.json.format(msgspec.json.encode(whole), indent=1)
    (HERE / "jobs.json").write_bytes(shown + b"\n")
    (HERE / "jobs.md").write_text(markdown(whole))
    (HERE / "jobs.svg").write_text(svg(whole))
    print(markdown(whole))
    return 0


def check(old: Path, new: Path) -> int:
    """Compare two results; the exit code says whether something got worse."""
    results = [msgspec.json.decode(path.read_bytes(), type=Result) for path in (old, new)]
    lines = worse(*results)
    print("\n".join(lines) or "nothing got worse")
    return 1 if lines else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        sys.exit(check(Path(sys.argv[2]), Path(sys.argv[3])))
    with base_directory() as base:
        code = trio.run(main, base, int(sys.argv[1]) if sys.argv[1:] else 10)
    sys.exit(code)
