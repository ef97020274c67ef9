"""The longest standstill of a busy service's loop, on the fake: `python -m tests.benchmarks.standstill`.

200 clients submit 5,000 jobs, half of them in runs of 50, while 100 readers ask for pages, the
board and metrics, and follow events and logs. (An argument is another number of jobs, with as many
fewer clients and readers.) The clients are a process of their own.

Three measures, because the machine is shared:

- `step`: the CPU time of the loop's thread in one step of one task. Noise does not count, nor
  does what blocks without using a processor.
- `turn`: the CPU time of the loop's thread between two wake-ups of a task that sleeps 5 ms.
- `late`: the wall time by which that task woke late. Beside it stands the lateness of an idle
  process that sleeps as long, in the same minutes: the machine's own noise.
"""

from __future__ import annotations

import gc
import linecache
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio

from orchestrator import Capacity, Settings
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.service.serving import Endpoints, serve

JOBS = 5000
JOBS_OF_A_CLIENT, JOBS_OF_A_READER = 25, 50
LONG_SECS, TICK_SECS = 0.05, 0.005
# What readers ask for, a part of them each; they pause between two answers.
PAGES = ("/v1/jobs?limit=200", "/", "/metrics", "/v1/statistics")
PAUSE_SECS = 0.5


class Lateness:
    """How late a task that sleeps `TICK_SECS` wakes up, in wall and in CPU seconds."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.turns: list[float] = []

    async def measure(self) -> None:
        while True:
            began, spent = time.perf_counter(), time.thread_time()
            await trio.sleep(TICK_SECS)
            self.late.append(time.perf_counter() - began - TICK_SECS)
            self.turns.append(time.thread_time() - spent)


class Steps(trio.abc.Instrument):
    """The CPU time of every task's steps; the longest ones by the task's function."""

    def __init__(self) -> None:
        self.count = 0
        self.longest: Counter[str] = Counter()
        self.long: Counter[str] = Counter()
        self._began = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        spent = time.thread_time() - self._began
        self.count += 1
        if spent > 0.005:
            name = f"{task.name} at {_where(task)}" if spent > 0.02 else task.name
            self.longest[name] = max(self.longest[name], spent)
            if spent > LONG_SECS:
                self.long[name] += 1


def _where(task: trio.lowlevel.Task) -> str:
    """The innermost frames of ours that the task waits in."""
    frames = [
        f"{Path(frame.f_code.co_filename).name}:{number}"
        for frame, number in task.iter_await_frames()
        if "orchestrator" in frame.f_code.co_filename
    ]
    linecache.clearcache()
    return " > ".join(frames[-2:])


class Pauses:
    """The CPU time of garbage collections, of whatever thread: none other runs meanwhile."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._began = 0.0
        gc.callbacks.append(self._told)

    def _told(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.pauses.append(time.thread_time() - self._began)


async def crowd(socket: str, jobs: int, workspace: str) -> None:
    """The clients, in a process of their own; they end when all jobs are submitted."""
    runs = iter([1, *[50] * (jobs // 100), *[1] * (jobs - jobs // 100 * 50 - 1)])
    errors: Counter[str] = Counter()
    submitted: list[str] = []
    snapshot: dict[str, Any] = {}

    def connected() -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=socket)
        return httpx.AsyncClient(transport=transport, base_url="http://pikaci", timeout=120)

    async def submit() -> None:
        async with connected() as http:
            for size in runs:
                names = {
                    f"job-{n}": {"command": "echo one; sleep 0.01; echo two"} for n in range(size)
                }
                body = {"workspace": workspace, "jobs": names, **snapshot}
                while True:
                    try:
                        answer = await http.post("/v1/runs", json=body)
                    except httpx.TransportError as error:
                        errors[type(error).__name__] += 1  # all come at once: the backlog is full
                    else:
                        if answer.status_code == 201:
                            first = answer.json()["jobs"][0]
                            submitted.append(first["id"])
                            snapshot["snapshot"] = first["snapshot"]
                            break
                        errors[f"{answer.status_code}"] += 1
                    await trio.sleep(random.random())

    async def read(number: int) -> None:
        async with connected() as http:
            while True:
                await trio.sleep(random.uniform(0.5, 1.5) * PAUSE_SECS)
                try:
                    await read_once(http, number)
                except httpx.TransportError as error:
                    errors[f"reader: {type(error).__name__}"] += 1

    async def read_once(http: httpx.AsyncClient, number: int) -> None:
        kind = number % 10
        if kind < 7:
            path = PAGES[min(kind // 2, 3)]
            answer = await http.get(path)
            if answer.status_code != 200:
                errors[f"{path}: {answer.status_code}"] += 1
        elif not submitted:
            pass
        elif kind < 9:
            what = ("events", "log?follow=true")[kind - 7]
            async with http.stream("GET", f"/v1/jobs/{submitted[-1]}/{what}") as answer:
                async for _ in answer.aiter_bytes():
                    pass
        else:
            with trio.move_on_after(5):
                async with http.stream("GET", "/v1/events") as answer:
                    async for _ in answer.aiter_bytes():
                        pass

    async with trio.open_nursery() as readers:
        for number in range(jobs // JOBS_OF_A_READER):
            readers.start_soon(read, number)
        async with trio.open_nursery() as submitters:
            submitters.start_soon(submit)
            while not snapshot:  # the others use what the first one has published
                await trio.sleep(0.05)
            for _ in range(jobs // JOBS_OF_A_CLIENT - 1):
                submitters.start_soon(submit)
        readers.cancel_scope.cancel()
    if errors:
        print(f"errors: {dict(errors)}")


async def idle() -> None:
    """The machine's noise until TERM, as a process has it that does nothing else."""
    lateness = Lateness()
    with trio.open_signal_receiver(signal.SIGTERM) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lateness.measure)
            await anext(received)
            nursery.cancel_scope.cancel()
    print(_shown("an idle process, late", lateness.late))


def _shown(name: str, found: list[float]) -> str:
    long = sum(secs > LONG_SECS for secs in found)
    return f"{name}: {long} of {len(found)} over 50 ms, the longest {max(found) * 1000:.0f} ms"


async def measured(jobs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pikaci-standstill-") as name:
        base = Path(name)
        (base / "workspace").mkdir()
        settings = Settings(
            workspace=base / "workspace",
            state_root=base / "root",
            capacity=Capacity(jobs=16),
            queue_jobs=2 * jobs,
        )
        door = base / "service.sock"
        lateness, pauses = Lateness(), Pauses()
        async with FakeIncus.open() as fake, trio.open_nursery() as nursery:
            incus = Incus(base / "conf", spawn=fake)
            nursery.start_soon(partial(serve, settings, Endpoints(door), incus=incus))
            while not door.exists():
                await trio.sleep(0.05)
            await trio.sleep(0.5)
            began, spent = time.perf_counter(), time.process_time()
            calm = await trio.lowlevel.open_process([sys.executable, "-m", __spec__.name, "idle"])
            steps = Steps()
            pauses.pauses.clear()
            trio.lowlevel.add_instrument(steps)
            nursery.start_soon(lateness.measure)
            me = [sys.executable, "-m", __spec__.name, "crowd", str(door), str(jobs)]
            try:
                await trio.run_process([*me, settings.workspace])
            finally:
                calm.terminate()
            took, cpu = time.perf_counter() - began, time.process_time() - spent
            trio.lowlevel.remove_instrument(steps)
            collections = list(pauses.pauses)
            await calm.wait()
            nursery.cancel_scope.cancel()
    print(f"{jobs} jobs submitted in {took:.1f} s, {cpu:.1f} s of CPU, {steps.count} steps")
    print(f"step: {sum(steps.long.values())} over 50 ms, the longest:")
    for name, longest in steps.longest.most_common(12):
        print(f"  {longest * 1000:6.1f} ms  {name}")
    print(_shown("turn", lateness.turns))
    print(_shown("late", lateness.late))
    print(_shown("collections of garbage", collections))


def main() -> None:
    match sys.argv[1:]:
        case ["crowd", socket, jobs, workspace]:
            trio.run(crowd, socket, int(jobs), workspace)
        case ["idle"]:
            trio.run(idle)
        case rest:
            trio.run(measured, int(rest[0]) if rest else JOBS)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
