"""Which image an alias means, in a process that lives long."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from orchestrator.image.store import KNOWN_SECS
from states.outcome import Verdict
from states.spec import InstanceType
from tests.samples import sample_shell_job
from tests.unit.orchestrator.rig import Rig, open_rig


async def test_an_alias_is_looked_up_anew_after_a_while(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """It may have been given to a newer image."""
    async with open_rig(tmp_path) as rig:
        first = [await rig.images.find("pikaci/dev", InstanceType.CONTAINER) for _ in range(3)]
        calls = len(rig.calls)
        mock_clock.jump(KNOWN_SECS)
        again = await rig.images.find("pikaci/dev", InstanceType.CONTAINER)

    assert 1 == calls
    assert 2 == len(rig.calls)
    assert [again] * 3 == first


def claim(rig: Rig, minor: str) -> None:
    """The image that jobs use claims to keep this minor version of the contract."""
    (image,) = rig.fake.store.projects["pikaci"].images.values()
    image.properties["pikaci.contract.minor"] = minor


@pytest.mark.parametrize("minor", ["0", "", "-1"])
async def test_an_older_image_is_named_once_a_run(
    tmp_path: Path, autojump_clock: MockClock, minor: str
) -> None:
    """Its jobs run; the first of each run has a warning that says what is lacking."""
    async with open_rig(tmp_path) as rig:
        claim(rig, minor)
        ids = [("r", 1), ("r", 2), ("q", 1)]
        jobs = [
            await rig.live(sample_shell_job(command="true"), run=run, number=n) for run, n in ids
        ]
        warned = {job.id: job.warnings for job in jobs if job.warnings}

    assert {"r.1", "q.1"} == warned.keys()
    assert all(job.verdict is Verdict.PASSED for job in jobs)
    (warning,) = warned["r.1"]
    assert "the image pikaci/dev keeps guest contract 1.0, not 1.4" in warning
    assert "localhost" in warning
    assert "`pikaci image build` rebuilds pikaci/dev" in warning
    assert [0] * 3 == [job.image.minor for job in jobs if job.image]


async def test_an_older_image_that_lacks_nothing_for_a_job_is_no_matter(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """What came since is only for jobs that ask for it, and those are refused."""
    async with open_rig(tmp_path) as rig:
        claim(rig, "1")
        job = await rig.live(sample_shell_job(command="true"))

    assert (Verdict.PASSED, ()) == (job.verdict, job.warnings)


@pytest.mark.parametrize("minor", ["3", "4"])
async def test_an_image_that_is_new_enough_is_not_named(
    tmp_path: Path, autojump_clock: MockClock, minor: str
) -> None:
    """A newer one keeps what an older one promises."""
    async with open_rig(tmp_path) as rig:
        claim(rig, minor)

        assert () == (await rig.live(sample_shell_job())).warnings
