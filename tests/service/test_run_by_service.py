"""`pikaci run` on the state root of a service, over the fake Incus."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from trio.testing import MockClock

from orchestrator.cli.exit_codes import ExitCodes
from orchestrator.cli.run_by_service import _run
from orchestrator.cli.watch import JsonWatch
from orchestrator.job.submission import Request
from orchestrator.service import limits
from orchestrator.state_root import StateRoot
from states.errors import PikaciError
from states.spec import JobSpec
from tests.service.served import Served, open_served


async def run(served: Served, command: str) -> int:
    request = Request(Path(served.workspace), {"job": JobSpec(command=command)})
    return await _run(request, StateRoot(served.socket.parent), JsonWatch(), ExitCodes.PIKACI)


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
