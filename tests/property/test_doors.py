"""Every way by which a job comes in: no writable one ever gets to its artifact directory."""

from __future__ import annotations

import ast
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrator
from orchestrator.capacity import Capacity
from orchestrator.engine import run_jobs
from orchestrator.job.queue import Queue
from orchestrator.job.submission import Request, judge, rejections
from orchestrator.journal import open_journal
from orchestrator.orchestrator import Orchestrator
from orchestrator.session.recovery import recover
from states import events as ev
from states.errors import SpecError, WritableWorkspace
from states.spec import InstanceType, JobSpec, Mount
from tests.quick import run_quickly
from tests.samples import sample_event, specs
from tests.unit.orchestrator.rig import Rig, open_rig

WORDS = "remote Linux VM backend `incus` does not support writable workspace jobs"


def of_this_host(spec: JobSpec) -> JobSpec:
    """The spec with directories that are here, no secrets, and a command that the fake knows."""
    here = {
        key: "/usr"
        for key in ("workspace_deps", "workspace_build", "nix_store")
        if getattr(spec, key)
    }
    mounts = tuple(Mount("/usr", mount.path) for mount in spec.mounts)
    command = spec.command if spec.writable_workspace else "true"
    changes = {
        "command": command,
        "secrets": {},
        "mounts": mounts,
        "network": "none",
        "image": "pikaci/dev",
        "instance_type": InstanceType.CONTAINER,
        "egress": (),
        "host_mirrors": False,
        **here,
    }
    return msgspec.structs.replace(spec, **changes)


RUNS = st.lists(specs().map(of_this_host), min_size=1, max_size=3)


def check_untouched(rig: Rig, specs_of: dict[str, JobSpec]) -> None:
    """Where one was writable, all that there is are words: no directory, no call, no event."""
    writable = [name for name, spec in specs_of.items() if spec.writable_workspace]
    rows = rig.journal.jobs()
    reset = [
        row.name
        for row in rows
        for _, entry in rig.journal.entries(row.id)
        if isinstance(entry, ev.ArtifactsReset)
    ]
    if not writable:
        assert set(specs_of) == set(reset)
        return
    assert [] == reset
    assert writable == [row.name for row in rows]
    assert {WORDS} == {row.message for row in rows}
    # The reaper looks around in any case.
    assert {call.argv[1] for call in rig.calls} <= {"query"}
    assert not directories(rig)


def directories(rig: Rig) -> list[str]:
    """The directories of jobs that were made."""
    jobs = rig.context.root.path / "jobs"
    return os.listdir(jobs) if jobs.exists() else []


@settings(max_examples=60)
@given(RUNS, st.booleans())
def test_no_submission_takes_a_writable_job_to_its_directory(
    run: list[JobSpec], by_engine: bool
) -> None:
    """Through the library, and through the engine behind `pikaci run`; alone or among others."""
    named = {f"job{number}": spec for number, spec in enumerate(run)}

    async def main(base: Path) -> None:
        async with open_rig(base / "root") as rig:
            (base / "tree").mkdir()
            request = Request(base / "tree", named)
            if by_engine:
                await run_jobs(rig.context, request, parallel=2, run="r")
            else:
                async with Orchestrator.over(rig.context, Capacity(jobs=2), session="r") as doors:
                    await doors.submit_run(request)
            check_untouched(rig, named)

    run_quickly(main)


@given(RUNS)
def test_the_door_lets_in_a_run_or_refuses_it(run: list[JobSpec]) -> None:
    """Who is refused is recorded as such; who is let in is a checked spec."""
    named = {f"job{number}": spec for number, spec in enumerate(run)}
    writable = {name for name, spec in named.items() if spec.writable_workspace}

    judged = judge(Request(Path("/"), named))

    assert writable == set(judged.refused)
    assert set(named) - writable == set(judged.checked)
    assert writable == {event.name for event in rejections(judged, "r")}
    assert not any(checked.spec.writable_workspace for checked in judged.checked.values())


@settings(max_examples=20)
@given(specs(writable=True))
def test_nobody_appends_a_writable_job(spec: JobSpec) -> None:
    """Not even who makes the event by hand."""

    async def main(base: Path) -> None:
        with open_journal(base / "journal") as journal:
            with pytest.raises(WritableWorkspace):
                await journal.append(sample_event(ev.Submitted, 1, spec=spec))
            assert [] == journal.jobs()

    run_quickly(main)


@settings(max_examples=20)
@given(specs(writable=True).map(of_this_host))
def test_a_recorded_writable_job_is_not_begun(spec: JobSpec) -> None:
    """Whatever wrote it into the journal: the job fails, and nothing was touched."""

    async def main(base: Path) -> None:
        async with open_rig(base / "root") as rig:
            await rig.journal.append(sample_event(ev.Submitted, 1))
            body = msgspec.json.encode(sample_event(ev.Submitted, 1, spec=spec))
            with closing(sqlite3.connect(rig.context.root.journal)) as connection, connection:
                connection.execute("UPDATE entries SET body = ?", (body,))
            await recover(rig.context, Queue(Capacity(jobs=1)))
            job = rig.journal.job("r.1")

            assert job.ended
            assert job.failure is not None
            assert WORDS in job.failure.message
            assert [] == rig.calls
            assert not directories(rig)

    run_quickly(main)


def test_one_place_makes_events_of_submission() -> None:
    """It makes them of checked specs, as mypy sees to."""
    makers = [
        path.name
        for path in Path(orchestrator.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and "Submitted" == (getattr(node.func, "attr", "") or getattr(node.func, "id", ""))
    ]

    assert ["submission.py"] == [name for name in makers if name != "journal_writer.py"]


def test_a_spec_that_its_real_paths_make_another_is_judged_as_that(tmp_path: Path) -> None:
    """What is stored is what was judged: a link may lead to a name that is not allowed."""
    (tmp_path / "two\nlines").mkdir()
    (tmp_path / "link").symlink_to("two\nlines")
    spec = JobSpec(command="true", nix_store=str(tmp_path / "link"))

    with pytest.raises(SpecError, match="nix_store has a control character"):
        judge(Request(tmp_path, {"job": spec}))
