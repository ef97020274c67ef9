"""What a program that embeds pikaci sees of it: names, a version, errors, handles."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

import orchestrator
from orchestrator import JobSpec, Request, SpecError, check
from orchestrator.fake_incus import GuestCommand, GuestOutcome
from orchestrator.testing import open_fake
from states.errors import PikaciError, WritableWorkspace
from states.testcases import CaseOutcome

REPORT = b'<testsuite><testcase name="a"/><testcase name="b"><failure/></testcase></testsuite>'


def test_only_public_names_are_listed_before_anything_is_imported() -> None:
    """And a program that only asks for the version does not wait for trio."""
    code = (
        "import orchestrator, sys; print(dir(orchestrator) == sorted(orchestrator.__all__),"
        " orchestrator.__version__, 'trio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert re.fullmatch(r"True \d+\.\d+\.\d+\S* False\n", done.stdout)
    assert all(hasattr(orchestrator, name) for name in dir(orchestrator))
    with pytest.raises(AttributeError):
        _ = orchestrator.no_such_name


def test_an_error_as_text_says_all_but_the_evidence() -> None:
    """What is wrong, the value, what is allowed; of several mistakes each on a line."""
    error = PikaciError("it broke", details="evidence", resolution="mend it")
    with pytest.raises(SpecError) as one:
        check(JobSpec(command="true", cpus=0))
    with pytest.raises(SpecError) as several:
        check(JobSpec(command="true", cpus=0, memory="4"))

    assert ("it broke; mend it", "it broke") == (str(error), error.headline)
    assert "it broke" == str(PikaciError("it broke"))
    assert "cpus is 0; allowed: a whole number from 1 to 1024" == str(one.value)
    assert "cpus is 0" == one.value.headline
    assert ["2 mistakes", str(one.value)] == str(several.value).splitlines()[:2]
    assert 3 == len(str(several.value).splitlines())
    assert WritableWorkspace.MESSAGE == str(WritableWorkspace())


async def leave_report(command: GuestCommand) -> GuestOutcome:
    if command.text != "true":
        await trio.sleep_forever()
    return GuestOutcome(artifacts={"junit.xml": REPORT})


async def test_what_a_job_has_left_is_asked_of_its_handle() -> None:
    """Files, tests and usage; nothing before there is any, and an error for a damaged list."""
    async with open_fake(guest_script=leave_report) as (opened, _):
        job = await opened.submit(JobSpec(command="sleep 1000"))
        assert ((), [], None, None) == (
            (await job.artifacts()).files, await job.tests(), await job.usage(), await job.output(),
        )  # fmt: skip
        await job.cancel(now=True)

        spec = JobSpec(command="true", artifacts=("*",), junit=("*.xml",))
        run = await opened.submit_run(Request(opened.root.path.parent / "workspace", {"a": spec}))
        (ended,) = await run.wait()
        (job,) = run.jobs
        assert ["junit.xml"] == [file.path for file in (await job.artifacts()).files]
        assert ["a", "b"] == [case.name for case in await job.tests()]
        assert ["b"] == [case.name for case in await job.tests(CaseOutcome.FAILED)]
        assert (ended.usage, ended.output) == (await job.usage(), await job.output())
        (Path(ended.artifacts or "") / "manifest.json").write_text("{")
        with pytest.raises(PikaciError, match="cannot be read"):
            await job.artifacts()

        assert f"<RunHandle {run.id}, 1 job>" == repr(run)
        assert f"<JobHandle {job.id}>" == repr(job)
        assert f"<Orchestrator {opened.root.path}>" == repr(opened)


@pytest.mark.parametrize("name", ["states/__init__.py", "states.py"])
def test_a_package_of_the_user_that_hides_ours_is_told(tmp_path: Path, name: str) -> None:
    """Whose it is, and what to do; that works."""
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("MINE = 1\n")
    program = tmp_path / "program.py"
    program.write_text("import orchestrator; print(orchestrator.JobSpec(command='x').command)")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, timeout=60, cwd=tmp_path
        )

    hidden = run("program.py")
    told = hidden.stderr.splitlines()[-1]
    where = theirs.parent if theirs.name == "__init__.py" else theirs
    assert 1 == hidden.returncode
    assert told.startswith(f"ImportError: {where} hides pikaci's package `states`: rename it")
    assert (0, "x\n") == ((safe := run("-P", "program.py")).returncode, safe.stdout)
