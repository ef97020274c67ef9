"""Jobs that need others, over HTTP: references are plain JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.capacity import Capacity
from orchestrator.cli.run_by_service import _run
from orchestrator.cli.watch import JsonWatch
from orchestrator.errors import UsageError
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.job.submission import Request
from orchestrator.jobfile import load
from orchestrator.state_root import StateRoot
from states.lifecycle import State
from states.spec import JobSpec, OutputOf
from tests.service.served import Served, open_served

DEPS = {"command": "make", "output": "/artifacts/out", "sources": []}
TEST = {
    "command": "use",
    "workspace_deps": {"job": "deps"},
    "mounts": [{"source": {"job": "deps"}, "path": "/mnt/deps"}],
}


async def script(command: GuestCommand) -> GuestOutcome:
    if command.text == "make":
        command.write("/artifacts/out/lib", b"made")
    if command.text == "use":
        command.print(command.read("/mnt/deps/lib"))
    return GuestOutcome(exit_code=int(command.text == "fail"))


async def post(served: Served, jobs: dict[str, Any], **more: Any) -> Any:
    body = {"workspace": served.workspace, "jobs": jobs, **more}
    return (await served.http.post("/v1/runs", json=body)).json()


async def ended(served: Served, run: Any) -> list[Any]:
    await (await served.orchestrator.find_run(run["id"])).wait()
    return list((await served.http.get(f"/v1/runs/{run['id']}")).json()["jobs"])


async def test_a_run_uses_what_an_earlier_one_made() -> None:
    """Unless it asks for a fresh output."""
    async with open_served(guest_script=script) as served:
        runs = [
            await ended(served, await post(served, {"test": TEST, "deps": DEPS}, **more))
            for more in ({}, {}, {"fresh": ["deps"]})
        ]
        log = await served.http.get(f"/v1/jobs/{runs[0][0]['id']}/log")

    assert [["result_collected"] * 2, ["result_collected", "reused"], ["result_collected"] * 2] == [
        [job["state"] for job in run] for run in runs
    ]
    assert {"passed"} == {job["verdict"] for run in runs for job in run}
    assert log.text.endswith("made")


async def test_all_mistakes_are_told_at_once_in_the_words_of_the_job_file(tmp_path: Path) -> None:
    """Those of one job and those of several, cycles too."""
    file = tmp_path / "pikaci.toml"
    file.write_text(
        "schema = 1\n"
        '[jobs.a]\ncommand = "true"\nneeds = ["b", "nothing"]\n'
        '[jobs.b]\ncommand = "true"\nneeds = ["a"]\n'
        '[jobs.c]\ncommand = "true"\nworkspace_deps = { job = "a" }\n'
    )
    jobs = {
        "a": {"command": "true", "needs": ["b", "nothing"]},
        "b": {"command": "true", "needs": ["a"]},
        "c": {"command": "true", "workspace_deps": {"job": "a"}},
    }
    with pytest.raises(UsageError) as caught:
        load(file)
    async with open_served(guest_script=script) as served:
        told = await post(served, jobs)
        rows = served.orchestrator.journal.jobs()

    lines = [line.removeprefix(f"{file}: ") for line in caught.value.details.splitlines()]
    assert 3 == len(lines)
    assert (422, "3 mistakes") == (told["status"], told["title"])
    assert sorted(lines) == sorted(told["detail"].splitlines())
    assert {State.REJECTED} == {row.state for row in rows}


@pytest.mark.parametrize(
    ("fresh", "words"),
    [
        ("test", "it has no `output`"),
        ("lint", "it is not in this run"),
    ],
)
async def test_what_cannot_be_made_fresh_is_told(fresh: str, words: str) -> None:
    """With the jobs that have an output; nothing is submitted."""
    async with open_served(guest_script=script) as served:
        told = await post(served, {"test": TEST, "deps": DEPS}, fresh=[fresh])
        rows = served.orchestrator.journal.jobs()

    assert (400, []) == (told["status"], rows)
    assert f"the job '{fresh}' has nothing to rebuild: {words}" in told["title"]
    assert "jobs with an output: deps" == told["resolution"]


async def test_the_command_asks_the_service_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    """`pikaci run --fresh` on a root that a service has."""
    specs = {
        "deps": JobSpec(command="make", output="/artifacts/out", sources=()),
        "test": JobSpec(command="true", workspace_deps=OutputOf("deps")),
    }
    async with open_served(guest_script=script) as served:
        root = StateRoot(served.socket.parent)
        for fresh in ((), (), ("deps",)):
            request = Request(Path(served.workspace), specs, fresh=fresh)
            assert 0 == (await _run(request, root, JsonWatch())).exit_code
        states = [row.state for row in served.orchestrator.journal.jobs() if row.name == "deps"]

    assert [State.RESULT_COLLECTED, State.REUSED, State.RESULT_COLLECTED] == states


async def test_a_run_stops_at_the_first_failure(capfd: pytest.CaptureFixture[str]) -> None:
    """If the request asks for that, and as `pikaci run --fail-fast` asks for it."""
    specs = {name: JobSpec(command="fail") for name in ("one", "two")}
    async with open_served(guest_script=script, capacity=Capacity(jobs=1)) as served:
        jobs = {name: {"command": "fail"} for name in specs}
        first = await ended(served, await post(served, jobs, fail_fast=True))
        request = Request(Path(served.workspace), specs, fail_fast=True)
        code = (await _run(request, StateRoot(served.socket.parent), JsonWatch())).exit_code
        verdicts = [row.verdict for row in served.orchestrator.journal.jobs()]

    assert 1 == code
    assert ["failed", "skipped"] == [job["verdict"] for job in first]
    assert ["failed", "skipped"] * 2 == verdicts
