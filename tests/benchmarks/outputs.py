"""What an output costs: to publish a tree, to use it, and to reuse it.

    python -m tests.benchmarks.outputs [--files 10000] [--rounds 5]

Jobs run one after the other, on the real Incus. A job that uses the tree takes turns with one that
uses nothing; only the ratio means something.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import trio

from orchestrator.journal import open_journal
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.spec import JobSpec, OutputOf
from tests.integration.running import Runs

MAKE = """\
import os
for number in range({files}):
    name = "/artifacts/tree/d%d" % (number // 100)
    os.makedirs(name, exist_ok=True)
    open(name + "/f%d" % number, "w").write("x" * 100)
"""


def effect_secs(runs: Runs, job: Job, name: str) -> float:
    """How long an effect of a job took."""
    with open_journal(runs.root.journal) as journal:
        entries = [entry for _, entry in journal.entries(job.id)]
    called = [e for e in entries if isinstance(e, ev.Called) and e.effect == name]
    return sum(call.duration_ms for call in called) / 1000


def ready_secs(job: Job) -> float:
    """From the slot to a guest whose mounts are there."""
    begins = {phase.state: phase.entered_at for phase in job.phases}
    return (begins[State.INSTANCE_READY] - begins[State.ARTIFACTS_RESET]).total_seconds()


async def main(files: int, rounds: int, base: Path) -> None:
    runs = Runs(base)
    command = f"python3 -c '{MAKE.format(files=files)}'"
    deps = JobSpec(command=command, output="/artifacts/tree", sources=())
    use = JobSpec(command="true", workspace_deps=OutputOf("deps"))
    made = (await runs.run({"deps": deps}))["deps"]
    print(f"publish {files} files: {effect_secs(runs, made, 'publish'):.2f} s")
    found: dict[str, list[float]] = {"without": [], "with": [], "reuse": []}
    for _ in range(rounds):
        found["without"].append(ready_secs(await runs.run_one(JobSpec(command="true"))))
        jobs = await runs.run({"deps": deps, "use": use})
        found["with"].append(ready_secs(jobs["use"]))
        first, last = jobs["deps"].phases[0], jobs["deps"].phases[-1]
        found["reuse"].append((last.entered_at - first.entered_at).total_seconds())
    middle = {name: statistics.median(secs) for name, secs in found.items()}
    ratio = middle["with"] / middle["without"]
    print(f"a ready guest with the tree beside one without: {ratio:.2f}")
    print(f"to find that it can be reused: {middle['reuse'] * 1000:.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        trio.run(partial(main, given.files, given.rounds, Path(made)))
