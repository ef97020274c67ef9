"""Two processes that want one output at once, and gc beside them, on the real Incus."""

from __future__ import annotations

import json
import re

import pytest

from orchestrator.outputs.store import OutputStore
from orchestrator.state_root import StateRoot
from tests.integration.command import SECS, Command
from tests.integration.running import SLIM

pytestmark = pytest.mark.incus

JOBS = """
schema = 1

[jobs.deps]
command = "sleep 2; echo made >/artifacts/out"
sources = []
output = "%s"

[jobs.use]
command = "cat %s"
%s
"""
TREE = JOBS.replace("/artifacts/out", "/artifacts/out/file").replace(
    "sleep 2", "mkdir /artifacts/out"
) % (
    "/artifacts/out",
    "/staged/linux-rust/workspace-deps/file",
    'workspace_deps = { job = "deps" }',
)
IMAGE = JOBS.replace("/artifacts/out", "/opt/out").replace("sleep 2; ", SLIM).replace(
    "sources", "run_as_root = true\nsources"
) % ("image", "/opt/out", 'image = { job = "deps" }')


@pytest.mark.parametrize("jobs", [TREE, IMAGE], ids=["tree", "image"])
def test_two_runs_that_want_one_output_make_it_once(pikaci: Command, jobs: str) -> None:
    """gc, as often as it can meanwhile, takes it from neither; when all is over it takes it."""
    pikaci.write(jobs)
    runs = [pikaci.start("run", "--output", "json") for _ in range(2)]
    collected = []
    while any(run.poll() is None for run in runs):
        if (pikaci.root / "journal.sqlite3").exists():
            collected.append(pikaci("gc", "--keep", "0"))
    ended = [run.communicate(timeout=SECS) for run in runs]
    last = json.loads(pikaci("gc", "--keep", "0", "--output", "json").stdout)

    assert [0, 0] == [run.returncode for run in runs], ended
    assert {0} == {one.returncode for one in collected}, collected
    seen = [{job["name"]: job["state"] for job in json.loads(out)["jobs"]} for out, _ in ended]
    assert ["result_collected"] * 2 == [one["use"] for one in seen]
    assert ["result_collected", "reused"] == sorted(one["deps"] for one in seen)
    assert 1 == sum(_outputs(one.stdout) for one in collected) + last["outputs"]
    store = OutputStore(StateRoot(pikaci.root).outputs)
    assert ([], None) == (store.all(), store.images_noted())


def _outputs(said: str) -> int:
    """How many outputs gc says that it deleted."""
    return int(re.findall(r"(\d+) outputs?:", said)[0])
