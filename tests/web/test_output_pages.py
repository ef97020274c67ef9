"""The page of jobs that leave outputs, use them, reuse them, or are skipped."""

from __future__ import annotations

from pathlib import Path

import msgspec
import trio

from orchestrator import JobSpec, Request
from orchestrator.capacity import Capacity
from orchestrator.service.web import board
from orchestrator.service.web.job import steps
from states import events as ev
from states.job import fold
from states.outcome import Outcome
from states.spec import OutputOf
from tests.samples import sample_event, sample_life, sample_shell_job
from tests.service.served import Served, open_served
from tests.unit.orchestrator.test_job_outputs import DEPS, script
from tests.web.rows import summary_of
from tests.web.test_html import HTML, check_harmless

SPECS = {
    "test": JobSpec(command="true", workspace_deps=OutputOf("deps")),
    "bad": JobSpec(command="fail"),
    "after": JobSpec(command="true", needs=("bad",)),
}


async def page(served: Served, path: str) -> str:
    answer = await served.http.get(path, headers=HTML)
    assert 200 == answer.status_code
    check_harmless(answer.text)
    return " ".join(answer.text.split())


async def test_inputs_and_outputs_lead_to_their_jobs() -> None:
    """With words and marks of their own, and what an output could use beyond its key."""
    async with open_served(guest_script=script) as served:
        workspace = Path(served.workspace)
        (workspace / "wanted").write_text("1")
        deps = msgspec.structs.replace(DEPS, workspace_build=served.workspace)
        runs = []
        for _ in range(2):
            request = Request(workspace, SPECS | {"deps": deps})
            handle = await served.orchestrator.submit_run(request)
            runs.append({job.name: job.id for job in await handle.wait()})
        first, second = runs
        built, reused = [await page(served, f"/jobs/{run['deps']}") for run in runs]
        used, skipped = [await page(served, f"/jobs/{second[name]}") for name in ("test", "after")]
        run = await page(served, f"/runs/{second['deps'].partition('.')[0]}")
        front = await page(served, "/")

    maker = f'<a href="/jobs/{first["deps"]}">{first["deps"]}</a>'
    beyond = "also used workspace_build, which is not part of its key"
    assert f"<dt>output<dd>made by {maker}" in built
    assert beyond in built
    assert '<span class="word reused">reused</span>' in reused
    assert f"Nothing was run: its output existed already, made by {maker}" in reused
    assert f'<dt>input<dd><a href="/jobs/{second["deps"]}"><bdi>deps</bdi></a>' in used
    assert beyond in used
    assert '<span class="word skipped">skipped</span>' in skipped
    assert "needs bad, which failed" in skipped
    assert 'aria-label="test needs deps"' in used
    assert f'<a href="/jobs/{second["deps"]}" aria-label="deps: reused">' in used
    assert 'aria-label="deps is needed by test"' in reused
    assert f'<dt>needs<dd><a href="/jobs/{second["bad"]}"><bdi>bad</bdi></a>' in skipped
    assert 1 == skipped.count("<dt>needs")
    assert "1 passed, 1 reused, 1 failed, 1 skipped" in run
    assert 'href="#s-reused"' in front
    assert 'href="#s-skipped"' in front


async def test_what_waits_for_jobs_is_among_the_current_ones() -> None:
    """With what it waits for."""
    async with open_served(guest_script=script, capacity=Capacity(jobs=1)) as served:
        (Path(served.workspace) / "wanted").write_text("1")
        specs = {
            "deps": msgspec.structs.replace(DEPS, command="slow"),
            "test": JobSpec(command="use", workspace_deps=OutputOf("deps")),
        }
        handle = await served.orchestrator.submit_run(Request(Path(served.workspace), specs))
        with trio.fail_after(30):
            while not handle.jobs[1].waits_for():
                await trio.lowlevel.checkpoint()
        front = await page(served, "/")
        job = await page(served, f"/jobs/{handle.jobs[1].id}")
        await handle.wait()

    assert "waits for the job deps" in front
    assert "waits for the job deps" in job


def test_a_run_that_was_stopped_is_what_stopped_it() -> None:
    """Not cancelled, as its other jobs are."""
    failed = sample_life()
    failed[-1] = sample_event(
        ev.ResultCollected, 6, outcome=Outcome.FAILED, exit_code=1, message="no"
    )
    stopped = sample_life(ev.Submitted, ev.CancelRequested, ev.Cancelled)
    stopped[1] = msgspec.structs.replace(stopped[1], because="r.2")
    run = board.run([summary_of(life) for life in (stopped, failed)])

    assert ("failed", "failed") == (run.mark, run.word)
    assert "cancelled" == run.jobs[0].word
    assert "1 failed, 1 skipped" == run.progress.words


def test_a_job_with_an_output_publishes_it() -> None:
    """That is a step of its own, which others do not have."""
    made = sample_shell_job(output="/artifacts/out")
    submitted = sample_event(ev.Submitted, 1, spec=made)

    names = [step.name for step in steps(fold([submitted]))]
    assert ["running", "publishing", "collected"] == names[-3:]
    assert "publishing" not in [step.name for step in steps(fold(sample_life()[:1]))]
