"""Outputs of real guests: what comes out of one comes into the next, unchanged."""

from __future__ import annotations

import pytest
import trio

from orchestrator.report import run_report
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec, Mount, OutputOf
from tests.integration.running import Runs, output_of

pytestmark = pytest.mark.incus

MAKE = """
mkdir -p /artifacts/out/bin /artifacts/out/empty '/artifacts/out/with space'
printf '#!/bin/sh\\necho it runs\\n' >/artifacts/out/bin/tool
chmod 700 /artifacts/out/bin /artifacts/out/bin/tool
ln -s /etc/hostname /artifacts/out/absolute
ln -s ../out/bin/tool /artifacts/out/relative
ln /artifacts/out/bin/tool /artifacts/out/second
touch -d @1000000000 /artifacts/out/old
"""
LOOK = """
cd /staged/linux-rust/workspace-deps
bin/tool; readlink absolute relative; second; ls -A; stat -c '%Y %a %U' old
if touch new; then echo written; fi
"""


async def test_a_tree_is_as_it_was_made(runs: Runs) -> None:
    """Links, modes and times survive; and it is read-only."""
    specs = {
        "deps": JobSpec(command=MAKE, output="/artifacts/out", sources=()),
        "use": JobSpec(
            command=f"PATH=$PATH:/staged/linux-rust/workspace-deps; {LOOK}",
            workspace_deps=OutputOf("deps"),
        ),
    }
    first = await runs.run(specs)
    again = await runs.run(specs)

    assert all(job.verdict is Verdict.PASSED for job in (*first.values(), *again.values()))
    assert [State.RESULT_COLLECTED, State.REUSED] == [one["deps"].state for one in (first, again)]
    lines = output_of(first["use"]).decode().splitlines()
    assert ["it runs", "/etc/hostname", "../out/bin/tool", "it runs"] == lines[:4]
    assert {"absolute", "bin", "empty", "old", "relative", "second", "with space"} <= set(lines)
    assert "1000000000 644 pikaci" in lines
    assert "written" not in lines


async def test_a_maker_with_sources_sees_nothing_else(runs: Runs) -> None:
    """Neither other files, nor a commit, nor the run."""
    look = 'ls -A; echo "<$PIKACI_COMMIT$PIKACI_RUN>"; mkdir /artifacts/out'
    jobs = await runs.run(
        {
            "some": JobSpec(command=look, output="/artifacts/out", sources=("hello.txt",)),
            "none": JobSpec(command=look, output="/artifacts/out", sources=()),
        }
    )

    assert b"hello.txt\n<>\n" == output_of(jobs["some"])
    assert b"<>\n" == output_of(jobs["none"])


async def test_a_tree_can_be_where_node_looks_for_it(runs: Runs) -> None:
    """Beside the workspace, at /workspace/NAME."""
    jobs = await runs.run(
        {
            "deps": JobSpec(
                command="mkdir -p /artifacts/m/left && echo 1 >/artifacts/m/left/index.js",
                output="/artifacts/m",
                sources=(),
            ),
            "use": JobSpec(
                command="cat ../node_modules/left/index.js",
                mounts=(Mount(OutputOf("deps"), "/workspace/node_modules"),),
            ),
        }
    )

    assert b"1\n" == output_of(jobs["use"])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("true", "there is no directory /artifacts/out"),
        ("touch /artifacts/out", "there is no directory /artifacts/out"),
        ("mkdir /artifacts/out && mkfifo /artifacts/out/p", "a pipe"),
    ],
)
async def test_what_is_no_tree_makes_its_job_fail(runs: Runs, command: str, words: str) -> None:
    """It is the job's fault, in words; and what needs it is skipped."""
    jobs = await runs.run(
        {
            "deps": JobSpec(command=command, output="/artifacts/out", sources=()),
            "use": JobSpec(command="true", workspace_deps=OutputOf("deps")),
        }
    )

    assert (Verdict.FAILED, Verdict.SKIPPED) == (jobs["deps"].verdict, jobs["use"].verdict)
    assert words in jobs["deps"].message


async def test_a_run_stops_at_its_first_failure(runs: Runs) -> None:
    """Guests that run are killed, with what their jobs printed; queued jobs have none."""
    specs = {
        "runs": JobSpec(command="echo begun; sleep 600"),
        "fails": JobSpec(command="sleep 2; exit 3"),
        "queued": JobSpec(command="true"),
    }
    began = trio.current_time()
    jobs = await runs.run(specs, parallel=2, fail_fast=True)

    assert trio.current_time() - began < 60
    assert ["cancelled", "failed", "skipped"] == [jobs[name].verdict for name in specs]
    assert b"begun\n" in output_of(jobs["runs"])
    failure = jobs["runs"].failure
    assert failure is not None
    assert "cancelled: the run stopped at fails, which failed" == failure.message
    assert 1 == run_report("r", [*jobs.values()]).exit_code
