"""`pikaci run` on the state root of a service, over the fake Incus."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator.cli import run_by_service
from orchestrator.cli.run_by_service import _run
from orchestrator.cli.watch import JsonWatch
from orchestrator.errors import UsageError
from orchestrator.job.submission import Request
from orchestrator.service import limits
from orchestrator.service.client import Client, RunAnswer
from orchestrator.state_root import StateRoot
from states.errors import PikaciError
from states.outcome import Verdict
from states.spec import JobSpec
from tests.service.served import Served, open_served
from tests.unit.orchestrator.workspaces import commit_all


async def run(served: Served, command: str) -> int:
    request = Request(Path(served.workspace), {"job": JobSpec(command=command)})
    return (await _run(request, StateRoot(served.socket.parent), JsonWatch())).exit_code


async def test_a_run_that_cannot_be_watched_goes_on_and_says_so(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not submitted again, and its jobs are found."""
    async with open_served() as served:
        monkeypatch.setattr(limits, "MAX_STREAMS", 0)
        with pytest.raises(PikaciError) as caught:
            await run(served, "sleep 400")
        (row,) = served.orchestrator.journal.jobs()
        ended = row.ended

    error = caught.value
    assert "0 streams" in error.brief
    assert f"`pikaci status {row.run}`" in error.resolution
    assert not ended


async def test_what_the_snapshot_lacks_is_told_as_without_a_service(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On stderr, and the job runs."""
    async with open_served() as served:
        git = ["git", "-C", served.workspace]
        subprocess.run([*git, "init", "-q"], check=True)
        (Path(served.workspace) / "sub").mkdir()
        link = ["--add", "--cacheinfo", f"160000,{'1' * 40},sub"]
        subprocess.run([*git, "update-index", *link], check=True)
        code = await run(served, "true")

    assert 0 == code
    assert "warning: submodules that are not initialised are empty: sub\n" == capfd.readouterr().err


async def test_the_snapshot_of_a_service_has_a_git_directory_too() -> None:
    """If the job file asks for it and there is a commit; else the error is the same as here."""
    async with open_served() as served:
        request = Request(Path(served.workspace), {"job": JobSpec(command="true")}, git=True)
        root = StateRoot(served.socket.parent)
        with pytest.raises(UsageError, match="needs a git repository"):
            await _run(request, root, JsonWatch())
        (Path(served.workspace) / "a").touch()
        commit = commit_all(Path(served.workspace))
        code = (await _run(request, root, JsonWatch())).exit_code
        (snapshot,) = root.snapshots.iterdir()

        assert 0 == code
        assert f"{commit}\n" == (snapshot / ".git" / "HEAD").read_text()


@pytest.mark.parametrize("answered", [True, False])
async def test_a_signal_during_the_submission_cancels_the_run(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    answered: bool,
) -> None:
    """The service has it, though it had not answered yet. Without an answer, that is told."""
    submit = run_by_service._submit

    async def submit_late(client: Client, request: Request) -> RunAnswer:
        there = await submit(client, request)
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep(1 if answered else math.inf)
        return there

    monkeypatch.setattr(run_by_service, "_submit", submit_late)
    async with open_served() as served:
        if answered:
            assert 130 == await run(served, "sleep 4000")
            (row,) = served.orchestrator.journal.jobs()
            assert Verdict.CANCELLED is served.orchestrator.journal.job(row.id).verdict
        else:
            with pytest.raises(PikaciError) as caught:
                await run(served, "sleep 4")
            assert "`pikaci cancel`" in caught.value.resolution

    assert "Stopping. Press Ctrl-C again" in capfd.readouterr().err
