"""Traces of jobs that leave outputs, use them, reuse them, or are skipped, in every form."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from orchestrator import JobSpec, Orchestrator, Request
from orchestrator.cli import pikaci
from orchestrator.report import job_document
from orchestrator.testing import open_fake
from orchestrator.tracing.html import html
from orchestrator.tracing.mermaid import mermaid
from orchestrator.tracing.otlp import otlp
from orchestrator.tracing.perfetto import perfetto
from orchestrator.tracing.story import job_story, run_story
from orchestrator.tracing.timeline import Timeline, timeline
from states import events as ev
from states.spec import OutputOf
from tests.samples import sample_event
from tests.unit.orchestrator.test_job_outputs import DEPS, script

SPECS = {
    "deps": msgspec.structs.replace(DEPS, command="slow"),
    "test": JobSpec(command="use", workspace_deps=OutputOf("deps")),
    "bad": JobSpec(command="fail"),
    "after": JobSpec(command="true", needs=("bad",)),
}


def timeline_of(orchestrator: Orchestrator, job: str) -> Timeline:
    return timeline(entry for _, entry in orchestrator.journal.entries(job))


@pytest.fixture
async def runs(tmp_path: Path) -> list[dict[str, Timeline]]:
    """Two runs: the first makes the output, the second reuses it."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "wanted").write_text("1")
    async with open_fake(guest_script=script) as (orchestrator, _):
        for _ in range(2):
            await (await orchestrator.submit_run(Request(workspace, SPECS))).wait()
        return [
            {row.name: timeline_of(orchestrator, row.id) for row in rows}
            for rows in orchestrator.journal.runs().values()
        ]


async def test_a_story_has_what_was_used_and_why_it_was_made(
    runs: list[dict[str, Timeline]],
) -> None:
    """And the wait for it; the critical path of the run goes through its maker."""
    first, second = runs
    made, used, skipped = (job_story(first[name]) for name in ("deps", "test", "after"))
    reused = job_story(second["deps"])

    assert ("", None) == (made.missing, reused.missing)
    assert made.output == reused.output == used.inputs["deps"]
    assert "input" == used.waited[0].name
    assert {"bad": first["bad"].id} == skipped.needs
    assert ["deps", "test"] == [link.name for link in run_story(list(first.values())).path]
    assert "publishing" in [state.state for state in made.states]


async def test_every_form_has_it(runs: list[dict[str, Timeline]]) -> None:
    """The page, the diagrams and the spans."""
    first, second = ([*jobs.values()] for jobs in runs)
    page = html(second).decode()
    spans = json.loads(otlp(second))["resourceSpans"][0]["scopeSpans"][0]["spans"]
    about = {span["name"]: {a["key"]: a["value"] for a in span["attributes"]} for span in spans}
    slices = json.loads(perfetto(second))["traceEvents"]

    maker = runs[0]["deps"].id
    key = runs[0]["deps"].job.output
    assert key is not None
    assert "output: reused, made by" in page
    assert "input deps: made by" in page
    assert "needs bad, which failed" in page
    assert {"stringValue": key.key} == about["test"]["pikaci.inputs"]
    assert {"stringValue": key.key} == about["deps"]["pikaci.output"]
    assert any(f"made by {maker}" == one.get("args", {}).get("detail") for one in slices)
    assert b"submitted --> reused" in mermaid([runs[1]["deps"]])
    assert b"submitted --> skipped" in mermaid([runs[1]["after"]])
    assert b"publishing" in mermaid(first)


async def test_the_document_of_a_job_has_it(runs: list[dict[str, Timeline]]) -> None:
    """As plain JSON."""
    used, after = (
        json.loads(msgspec.json.encode(job_document(runs[1][name].job)))
        for name in ("test", "after")
    )

    assert {"deps": runs[1]["deps"].id} == used["needs"]
    assert runs[0]["deps"].id == used["inputs"]["deps"]["job"]
    assert (None, None) == (used["output"], used["because"])
    assert runs[1]["bad"].id == after["because"]


def test_what_still_waits_waits_for_its_inputs() -> None:
    """Not for a slot, for which it is not queued."""
    submitted = sample_event(ev.Submitted, 1, needs={"deps": "r.2"})
    story = job_story(timeline([submitted], until=sample_event(ev.Submitted, 9).at))

    assert ["input"] == [part.name for part in story.states[0].parts]
    assert story.states[0].parts[0].going_on


async def test_people_read_it(tmp_path: Path) -> None:
    """In short and in full, and when two jobs are compared."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    wanted = workspace / "wanted"
    async with open_fake(guest_script=script) as (orchestrator, _):
        runs = []
        for content in "112":
            wanted.write_text(content)
            handle = await orchestrator.submit_run(Request(workspace, SPECS))
            runs.append({job.name: job.id for job in await handle.wait()})

        def trace(*words: str) -> str:
            root = ["--state-root", str(orchestrator.root.path)]
            done = CliRunner().invoke(pikaci, ["trace", *words, *root], standalone_mode=False)
            if done.exception:
                raise done.exception
            return done.output

        reused, built = trace(runs[1]["deps"]), trace(runs[2]["deps"])
        used, skipped = trace(runs[0]["test"]), trace(runs[0]["after"])
        verbose = [trace("-v", runs[2]["deps"]), trace("-v", runs[1]["deps"])]
        verbose += [trace("-v", runs[0][name]) for name in ("test", "after")]
        compared = trace("diff", runs[1]["deps"], runs[2]["deps"])

    assert "output: reused, made by " in reused
    assert "output: built, because wanted changed" in built
    assert "input deps: made by " in used
    assert f"waits for jobs that it needs (until {runs[0]['deps']} ended)" in used
    assert "needs bad, which failed" in skipped
    assert "no output can be reused: wanted changed" in verbose[0]
    assert f"made by {runs[0]['deps']}" in verbose[1]
    assert f"artifacts_reset: uses deps of {runs[0]['deps']}" in verbose[2]
    assert "skipped: needs bad, which failed" in verbose[3]
    assert "output: built, because wanted changed" in compared
    assert "different paths" in compared
