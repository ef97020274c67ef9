"""How long it takes from a cancellation to the job's death, its verdict, and no instance.

`python -m tests.benchmarks.cancel [TIMES]`, on the real Incus. Three kinds of job: one that
ends at TERM, one that ignores it (and so has its grace period of 5 s), one that is cancelled
with `--now`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import trio

from orchestrator.engine import run_jobs
from orchestrator.job.context import Context
from orchestrator.job.submission import Request
from orchestrator.journal import open_journal
from orchestrator.orchestrator import new_run_id
from orchestrator.settings import open_incus
from orchestrator.state_root import StateRoot
from states import events as ev
from states.ending import Intent
from states.spec import JobSpec

OBEYS, IGNORES = "echo begun; sleep 600", "trap '' TERM; echo begun; while :; do sleep 1; done"
KINDS = {"ends at TERM": (OBEYS, False), "ignores TERM": (IGNORES, False), "now": (IGNORES, True)}


async def main(times: int) -> None:
    print(f"{'':14}{'verdict: median':>18}{'max':>8}{'gone: median':>16}{'max':>8}   (s)")
    for kind, (command, now) in KINDS.items():
        with tempfile.TemporaryDirectory() as base:
            measured = [await _once(Path(base), command, now=now) for _ in range(times)]
        verdicts, gones = zip(*measured, strict=True)
        print(
            f"{kind:14}{statistics.median(verdicts):18.2f}{max(verdicts):8.2f}"
            f"{statistics.median(gones):16.2f}{max(gones):8.2f}"
        )


async def _once(base: Path, command: str, *, now: bool) -> tuple[float, float]:
    workspace = base / "workspace"
    workspace.mkdir(exist_ok=True)
    root = StateRoot(base / "state")
    root.make()
    moments: dict[type[ev.Entry], float] = {}
    with open_journal(root.journal) as journal, trio.CancelScope() as scope:
        begun = trio.Event()

        def note(entry: ev.Entry) -> None:
            moments.setdefault(type(entry), time.monotonic())

        journal.observe(note)
        context = Context(
            root=root,
            journal=journal,
            incus=open_incus(),
            on_log=lambda job, chunk: begun.set() if b"begun" in chunk else None,
        )
        if now:
            context.intent.rise(Intent.CANCEL_NOW)

        async def cancel() -> None:
            await begun.wait()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            request = Request(workspace=workspace, specs={"job": JobSpec(command=command)})
            await run_jobs(context, request, parallel=1, run=new_run_id())
    asked = moments[ev.CancelRequested]
    return moments[ev.Cancelled] - asked, moments[ev.LeaseEnded] - asked


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if sys.argv[1:] else 10)
