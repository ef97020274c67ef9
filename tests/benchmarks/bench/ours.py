"""The job by pikaci: as a library, as a command, and by a service that runs already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import trio

from orchestrator import Capacity, JobHandle, JobSpec, Orchestrator, Settings, WarmGuests
from orchestrator.journal import read_journal
from orchestrator.service.serving import default_socket
from orchestrator.state_root import StateRoot
from states import events as ev
from tests.benchmarks.bench.plain import FIRST_BYTE, GONE, OUTPUT, VERDICT, Moments

PIKACI = "from orchestrator.cli import main; main()"
_MOMENT_OF = {ev.ResultCollected: VERDICT, ev.LeaseEnded: GONE}
_LOOK_SECS = 0.01
_WARM_SECS = 60.0


class Library:
    """Jobs of an orchestrator in this process; a moment counts once it is in the journal or the log.

    With `warm`, each must find a warm guest, and `run` returns when the next one is there: no other
    side runs beside its boot.
    """

    def __init__(self, orchestrator: Orchestrator, spec: JobSpec, *, warm: bool = False) -> None:
        self._orchestrator = orchestrator
        self._spec = spec
        self._warm = warm
        self._seen: dict[str, Moments] = {}
        self._gone: dict[str, trio.Event] = {}
        orchestrator.journal.observe(self._note)

    def _note(self, entry: ev.Entry) -> None:
        seen = self._seen.setdefault(entry.job, {})
        moment = _MOMENT_OF.get(type(entry))
        if moment is not None:
            seen[moment] = time.monotonic()
        if moment == GONE:
            self._gone.setdefault(entry.job, trio.Event()).set()

    async def run(self, name: str) -> Moments:
        began = time.monotonic()
        handle = await self._orchestrator.submit(self._spec, name=name)
        first = await first_output(handle)
        await self._gone.setdefault(handle.id, trio.Event()).wait()
        job = handle.job
        seen = self._seen.pop(job.id)
        assert VERDICT in seen and (job.warm_ms is not None) == self._warm, job
        if self._warm:
            await self.wait_warm()
        return {moment: at - began for moment, at in {FIRST_BYTE: first, **seen}.items()}

    async def wait_warm(self) -> None:
        """Return when there is a warm guest. The pool has one at most, so none boots then."""
        with trio.fail_after(_WARM_SECS):
            while not self._orchestrator.statistics().warm:
                await trio.sleep(_LOOK_SECS)


async def first_output(handle: JobHandle) -> float:
    """When somebody who follows the job's log sees the command's own output."""
    said = b""
    async with aclosing(handle.log()) as log:
        async for chunk in log:
            said += chunk
            if OUTPUT in said:
                return time.monotonic()
    raise AssertionError(said)


@asynccontextmanager
async def warm_library(base: Path, spec: JobSpec) -> AsyncIterator[Library]:
    """Jobs of this kind in warm guests; the first one, which makes its own, has ended."""
    settings = Settings(
        workspace=base / "workspace",
        state_root=warm_root(base).path,
        # While a job has one slot, its successor's guest is made in the other.
        capacity=Capacity(jobs=2),
        # Not the default: while other things are measured, no guest of it may leave for its age.
        warm=WarmGuests(size=1, idle_secs=3600),
    )
    async with Orchestrator.open(settings) as orchestrator:
        library = Library(orchestrator, spec, warm=True)
        await orchestrator.submit_and_wait(spec)
        await library.wait_warm()
        yield library


def warm_root(base: Path) -> StateRoot:
    """The state root of `warm_library`."""
    return StateRoot(base / "warm")


def environment(base: Path) -> dict[str, str]:
    """An installed pikaci is compiled once, and so is this one, in the round that warms up."""
    variables = {**os.environ, "PYTHONPYCACHEPREFIX": str(base / "compiled")}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


class Command:
    """Each job is a `pikaci run` of its own, with this state root."""

    def __init__(self, base: Path, spec: JobSpec, root: Path) -> None:
        self._base = base
        self._root = root
        mounts = [{"source": str(mount.source), "path": mount.path} for mount in spec.mounts]
        document = {"command": spec.command, "image": spec.image, "mounts": mounts}
        self._stdin = json.dumps(document).encode()

    async def run(self, _: str) -> Moments:
        """The command waits until its guest is gone."""
        moments, ended = await trio.to_thread.run_sync(self._command)
        return moments | {GONE: ended}

    async def run_by_service(self, _: str) -> Moments:
        """The command ends when the verdict is known; the service deletes the guest."""
        began = time.monotonic()
        moments, ended = await trio.to_thread.run_sync(self._command)
        with read_journal(StateRoot(self._root).journal) as journal:
            while journal.open_leases():
                await trio.sleep(_LOOK_SECS)
        return moments | {VERDICT: ended, GONE: time.monotonic() - began}

    def _command(self) -> tuple[Moments, float]:
        moments: Moments = {}
        words = ("run", "--spec", "-", "--workspace", str(self._base / "workspace"))
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-c", PIKACI, *words, "--state-root", str(self._root)],
            env=environment(self._base),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(self._stdin)
            process.stdin.close()
            for line in process.stdout:
                if b"first" in line:
                    moments.setdefault(FIRST_BYTE, time.monotonic() - began)
        ended = time.monotonic() - began
        if process.returncode:
            raise RuntimeError(f"pikaci run ended with {process.returncode}")
        return moments, ended


class Service:
    """A `pikaci serve` that runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_secs(self) -> float:
        """CPU time of the service, and of the commands that it waited for."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def serving(base: Path, root: Path) -> AsyncIterator[Service]:
    """A service with this state root, for as long as the block lasts."""
    words = (
        "serve",
        "--allow-mounts",
        str(base),
        "--workspace",
        str(base / "workspace"),
        "--state-root",
        str(root),
    )
    process = subprocess.Popen(
        # It ends with the benchmark, whatever ends that.
        ["setpriv", "--pdeathsig", "TERM", sys.executable, "-c", PIKACI, *words],
        env=environment(base),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(60):
            while not default_socket(StateRoot(root)).exists():
                assert process.poll() is None, "the service ended"
                await trio.sleep(0.05)
        yield Service(process.pid)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(process.wait)
