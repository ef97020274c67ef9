"""Directories that become others between a job's submission and its mounts, on the fake Incus."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from states import events as ev
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec, Keep, Mount
from tests.samples import sample_shell_job
from tests.unit.orchestrator.rig import Rig, open_rig
from tests.unit.orchestrator.test_recovery import die_when, go_on

KEYS = ("workspace_deps", "workspace_build", "nix_store", "mounts[0].source")


def mounting(path: Path, key: str = KEYS[-1]) -> JobSpec:
    """A job that mounts the directory by this key."""
    mounts = (Mount(source=str(path), path="/mnt/data"),)
    named: dict[str, Any] = {"mounts": mounts} if key == KEYS[-1] else {key: str(path)}
    return sample_shell_job(**named)


def verbs(rig: Rig) -> list[str]:
    """What Incus was asked to do with instances."""
    called = [note.argv[1] for note in rig.notes(ev.Called)]
    return [verb for verb in called if verb in ("launch", "start", "delete")]


@pytest.mark.parametrize("key", KEYS)
async def test_a_link_in_a_directory_s_place_is_not_mounted(tmp_path: Path, key: str) -> None:
    """The job says which one; nothing was created for it."""
    data = tmp_path / "data"
    data.mkdir()
    async with open_rig(tmp_path / "root") as rig:
        task = await rig.submit(mounting(data, key))
        data.rmdir()
        data.symlink_to("/etc")
        await task.run()
        job = rig.journal.job("r.1")
        leases = rig.journal.open_leases()
        created = "launch" in verbs(rig)

    assert (State.FAILED, Verdict.INFRASTRUCTURE) == (job.state, job.verdict)
    assert job.failure is not None
    assert f"{key}: '{data}' was a directory" in job.failure.message
    assert "now leads to '/etc'" in job.failure.message
    assert (False, []) == (created, leases)


async def test_the_rule_holds_when_the_job_begins(tmp_path: Path) -> None:
    """An operator's `allow_mounts` may be another than when the job came in."""
    data = tmp_path / "data"
    data.mkdir()
    async with open_rig(tmp_path / "root", allow_mounts=(tmp_path / "other",)) as rig:
        job = await rig.live(mounting(data))

    assert Verdict.INFRASTRUCTURE == job.verdict
    assert job.failure is not None
    assert "is not a directory that jobs" in job.failure.message


@pytest.mark.parametrize(
    ("when", "expected"),
    [(ev.LeaseOpened, ["delete"]), (ev.DevicesConfigured, ["launch", "delete"])],
)
async def test_a_directory_is_looked_at_right_before_and_after_it_is_mounted(
    tmp_path: Path, when: type[ev.Entry], expected: list[str]
) -> None:
    """Incus mounts it as it makes the guest. No command runs there, and nothing is kept."""
    data = tmp_path / "data"
    data.mkdir()

    def swap(entry: ev.Entry) -> None:
        if isinstance(entry, when):
            data.rename(tmp_path / "moved")

    async with open_rig(tmp_path / "root", keep_secs=3600.0) as rig:
        rig.journal.observe(swap)
        job = await rig.live(mounting(data))
        asked = verbs(rig)
        left = rig.fake.instances()

    assert Verdict.INFRASTRUCTURE == job.verdict
    assert job.failure is not None
    assert f"'{data}' was a directory when the job was submitted, and is not one any more" in (
        job.failure.message
    )
    assert (expected, {}) == (asked, left)


async def test_a_directory_is_looked_at_again_before_a_guest_is_started_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A process that died had looked at it, and the host was rebooted since. Nothing is kept."""
    data = tmp_path / "data"
    data.mkdir()
    async with open_rig(tmp_path / "root") as rig:
        rig.fake.hang("pikaci-ready")
        spec = msgspec.structs.replace(mounting(data), keep=Keep.FAILURE)
        await die_when(rig, spec, lambda job: job.state is State.DEVICES_CONFIGURED)
        rig.fake.stop_guest(*rig.fake.instances())
        data.rename(tmp_path / "moved")
        await go_on(rig)
        job = rig.journal.job("r.1")
        left = rig.fake.instances()
        asked = verbs(rig)

    assert (Verdict.INFRASTRUCTURE, {}) == (job.verdict, left)
    assert job.failure is not None
    assert "and is not one any more" in job.failure.message
    assert "start" not in asked


async def test_what_stays_is_mounted(tmp_path: Path) -> None:
    """Also when what lies in it has changed."""
    data = tmp_path / "data"
    data.mkdir()
    async with open_rig(tmp_path / "root") as rig:
        spec = msgspec.structs.replace(mounting(data), command="true")
        task = await rig.submit(spec)
        (data / "new").touch()
        os.utime(data)
        await task.run()

        assert Verdict.PASSED == rig.journal.job("r.1").verdict
