"""Jobs that leave outputs, and jobs that use them, on the fake Incus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from orchestrator import Capacity, JobSpec, Orchestrator, Request, Verdict
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.testing import open_fake
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.spec import OutputOf

DEPS = JobSpec(command="make", output="/artifacts/site", sources=("wanted",))
TEST = JobSpec(command="use", workspace_deps=OutputOf("deps"))


ran: list[str] = []


async def script(command: GuestCommand) -> GuestOutcome:
    """`make` writes a tree, `use` reads it, `fail` fails, `slow` makes it slowly."""
    verb = command.text
    ran.append(verb)
    if verb in ("make", "slow"):
        await trio.sleep(1 if verb == "slow" else 0)
        wanted = command.read("/workspace/snapshot/wanted")
        command.write("/artifacts/site/lib.py", b"made of " + wanted)
    if verb == "use":
        command.print(command.read("/staged/linux-rust/workspace-deps/lib.py"))
    return GuestOutcome(exit_code=1 if verb == "fail" else 0)


async def run(
    orchestrator: Orchestrator, workspace: Path, specs: dict[str, JobSpec], **options: Any
) -> dict[str, Job]:
    """Submit the jobs as one run; the jobs by name, when all have ended."""
    handle = await orchestrator.submit_run(Request(workspace, specs, **options))
    return {job.name: job for job in await handle.wait()}


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    (place / "wanted").write_text("1")
    (place / "other").write_text("1")
    return place


def reasons(orchestrator: Orchestrator, job: Job) -> list[str]:
    entries = orchestrator.journal.entries(job.id)
    return [entry.reason for _, entry in entries if isinstance(entry, ev.OutputMissing)]


async def test_an_output_is_made_once_and_used_by_what_needs_it(workspace: Path) -> None:
    """In the next run the maker does not run; the consumer sees the same tree."""
    async with open_fake(guest_script=script) as (orchestrator, _):
        first = await run(orchestrator, workspace, {"test": TEST, "deps": DEPS})
        again = await run(orchestrator, workspace, {"test": TEST, "deps": DEPS})
        logs = []
        for one in (first, again):
            log = orchestrator.job(one["test"].id).log()
            logs.append(b"".join([part async for part in log]))

    assert all(job.verdict is Verdict.PASSED for job in (*first.values(), *again.values()))
    assert [State.RESULT_COLLECTED, State.REUSED] == [one["deps"].state for one in (first, again)]
    assert ["make", "use", "use"] == ran
    assert all(one.endswith(b"made of 1") for one in logs)
    assert first["deps"].output == again["deps"].output == again["test"].inputs["deps"]
    assert State.PUBLISHING in [phase.state for phase in first["deps"].phases]


async def test_only_what_the_maker_sees_makes_it_run_again(workspace: Path) -> None:
    """And the reason is told: the file, or the key of the spec."""
    async with open_fake(guest_script=script) as (orchestrator, _):
        jobs = [(await run(orchestrator, workspace, {"deps": DEPS}))["deps"]]
        (workspace / "other").write_text("2")
        jobs.append((await run(orchestrator, workspace, {"deps": DEPS}))["deps"])
        (workspace / "wanted").write_text("2")
        jobs.append((await run(orchestrator, workspace, {"deps": DEPS}))["deps"])
        more = msgspec.structs.replace(DEPS, memory="2GiB", priority=3)
        jobs.append((await run(orchestrator, workspace, {"deps": more}))["deps"])
        other = msgspec.structs.replace(DEPS, env={"A": "b"})
        jobs.append((await run(orchestrator, workspace, {"deps": other}))["deps"])
        why = [reasons(orchestrator, job) for job in jobs]

    assert [[""], [], ["wanted changed"], [], ["the environment changed"]] == why
    assert [False, True, False, True, False] == [job.state is State.REUSED for job in jobs]


async def test_what_needs_a_job_that_did_not_pass_is_skipped(workspace: Path) -> None:
    """With the reason, whatever it needs it for; and so is what needs that one."""
    specs = {
        "deps": msgspec.structs.replace(DEPS, command="fail"),
        "test": TEST,
        "after": JobSpec(command="true", needs=("test",)),
        "free": JobSpec(command="true"),
    }
    async with open_fake(guest_script=script) as (orchestrator, _):
        jobs = await run(orchestrator, workspace, specs)

    assert ["failed", "skipped", "skipped", "passed"] == [jobs[n].verdict for n in specs]
    assert ["fail", "true"] == sorted(ran)
    assert jobs["deps"].id == jobs["test"].needs["deps"]
    failure = jobs["after"].failure
    assert failure is not None
    assert "needs test, which was skipped" == failure.message


async def test_an_output_is_made_anew_when_asked_for(workspace: Path) -> None:
    """Beside the old one, which whoever uses it keeps."""
    async with open_fake(guest_script=script) as (orchestrator, _):
        first = await run(orchestrator, workspace, {"deps": DEPS})
        fresh = await run(orchestrator, workspace, {"deps": DEPS}, fresh=("deps",))
        again = await run(orchestrator, workspace, {"deps": DEPS})
        trees = [p.name for p in orchestrator.root.outputs.iterdir() if p.name[0] != "."]

    assert first["deps"].state is fresh["deps"].state is State.RESULT_COLLECTED
    assert again["deps"].output == fresh["deps"].output != first["deps"].output
    assert 2 == len(trees)


async def test_what_was_made_of_an_output_is_made_anew_with_it(workspace: Path) -> None:
    """Its key is the same, but what came over the network may not be; and only once."""
    specs = {
        "deps": DEPS,
        "site": msgspec.structs.replace(DEPS, workspace_deps=OutputOf("deps")),
    }
    async with open_fake(guest_script=script) as (orchestrator, _):
        runs = [
            await run(orchestrator, workspace, specs, fresh=fresh) for fresh in ((), ("deps",), ())
        ]
        why = reasons(orchestrator, runs[1]["site"])

    assert ["the output of deps was rebuilt"] == why
    assert [False, False, True] == [one["site"].state is State.REUSED for one in runs]


async def test_two_runs_make_one_output_once(workspace: Path) -> None:
    """The second waits for the first, and then uses what that made."""
    slow = msgspec.structs.replace(DEPS, command="slow")
    async with open_fake(guest_script=script) as (orchestrator, _):
        handles = [
            await orchestrator.submit_run(Request(workspace, {"deps": slow, "test": TEST}))
            for _ in range(2)
        ]
        jobs = [{job.name: job for job in await handle.wait()} for handle in handles]

    assert [Verdict.PASSED] * 4 == [job.verdict for one in jobs for job in one.values()]
    assert ["slow", "use", "use"] == ran
    assert jobs[1]["deps"].state is State.REUSED


async def test_a_cancelled_maker_skips_nobody_else(workspace: Path) -> None:
    """The run that waits makes it itself; only the cancelled run's own job is skipped."""
    slow = msgspec.structs.replace(DEPS, command="slow")
    async with open_fake(guest_script=script) as (orchestrator, _):
        first = await orchestrator.submit_run(Request(workspace, {"deps": slow, "test": TEST}))
        second = await orchestrator.submit_run(Request(workspace, {"deps": slow, "test": TEST}))
        async for event in first.jobs[0].events():
            if isinstance(event, ev.Running):
                break
        await first.jobs[0].cancel()
        verdicts = [[job.verdict for job in await one.wait()] for one in (first, second)]

    assert [["cancelled", "skipped"], ["passed", "passed"]] == verdicts


async def test_a_maker_without_an_output_has_failed(workspace: Path) -> None:
    """That is its own fault, told as such; what needs it is skipped."""
    empty = msgspec.structs.replace(DEPS, command="true")
    async with open_fake(guest_script=script) as (orchestrator, _):
        jobs = await run(orchestrator, workspace, {"deps": empty, "test": TEST})

    assert (Verdict.FAILED, Verdict.SKIPPED) == (jobs["deps"].verdict, jobs["test"].verdict)
    assert "there is no directory /artifacts/site" in jobs["deps"].message


async def test_a_job_that_waits_has_no_slot(workspace: Path) -> None:
    """With one slot, a consumer that is named first does not keep its maker from running."""
    async with open_fake(guest_script=script, capacity=Capacity(jobs=1)) as (orchestrator, _):
        jobs = await run(orchestrator, workspace, {"test": TEST, "deps": DEPS})

    assert [Verdict.PASSED, Verdict.PASSED] == [job.verdict for job in jobs.values()]


async def test_a_reference_that_leads_nowhere_is_refused(workspace: Path) -> None:
    """The job is rejected, as for any other mistake in it, and nothing has run."""
    async with open_fake(guest_script=script) as (orchestrator, _):
        jobs = await run(orchestrator, workspace, {"test": TEST})

    assert Verdict.REJECTED is jobs["test"].verdict
    assert jobs["test"].failure is not None
    assert "which does not exist" in jobs["test"].failure.message
    assert [] == ran


async def test_what_a_job_waits_for_is_told(workspace: Path) -> None:
    """A job that waits for another is not queued for a slot yet."""
    after = JobSpec(command="true", needs=("deps", "other"))
    specs = {"other": JobSpec(command="slow"), "deps": DEPS, "test": TEST, "after": after}
    async with open_fake(guest_script=script, capacity=Capacity(jobs=1)) as (orchestrator, _):
        handle = await orchestrator.submit_run(Request(workspace, specs))
        jobs = dict(zip(specs, handle.jobs, strict=True))
        with trio.fail_after(60):
            while not orchestrator.statistics().queued:
                await trio.sleep(0.01)
        waits = {name: job.waits_for() for name, job in jobs.items()}
        numbers = orchestrator.statistics()
        await handle.wait()
        afterwards = [job.waits_for() for job in handle.jobs]

    assert ("the job deps", "the jobs deps, other") == (waits["test"], waits["after"])
    assert waits["deps"].startswith("a slot: ")
    assert "" == waits["other"]
    assert (2, 1, 1) == (numbers.waiting, numbers.queued, numbers.running)
    assert [""] * 4 == afterwards
