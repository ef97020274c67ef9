"""What cannot be run is refused in words, and nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator import (
    Capacity,
    JobSpec,
    Orchestrator,
    Settings,
    SpecError,
    UsageError,
    Verdict,
)
from orchestrator.fake_incus import FakeIncus
from orchestrator.incus import Incus
from orchestrator.incus.errors import DaemonUnreachable
from orchestrator.testing import open_fake
from states import events as ev
from states.spec import Mount
from tests.unit.orchestrator.submitted import PASSES


async def test_a_refused_spec_is_recorded_and_told() -> None:
    """In its own words, and nothing else was touched."""
    async with open_fake() as (orchestrator, _):
        with pytest.raises(SpecError, match="does not support writable workspace jobs"):
            await orchestrator.submit(JobSpec(command="true", writable_workspace=True))

        (row,) = orchestrator.journal.jobs()
        assert Verdict.REJECTED is orchestrator.job(row.id).job.verdict
        assert [] == os.listdir(orchestrator.root.snapshots)


async def test_a_job_too_big_for_the_host_is_refused() -> None:
    """It would wait for ever."""
    capacity = Capacity(jobs=2, cpus=4, memory=2**30)
    async with open_fake(capacity=capacity) as (orchestrator, _):
        with pytest.raises(SpecError, match="more than all jobs together may use"):
            await orchestrator.submit(JobSpec(command="true", memory="2GiB"))

        assert [] == orchestrator.journal.jobs()


async def test_without_a_daemon_nothing_is_submitted() -> None:
    """The error is the daemon's, by itself."""
    async with open_fake() as (orchestrator, fake):
        fake.kill_daemon()
        with pytest.raises(DaemonUnreachable):
            await orchestrator.submit(PASSES)

        assert [] == orchestrator.journal.jobs()


async def test_host_directories_are_real_or_refused(tmp_path: Path) -> None:
    """A path that is relative, or of nothing, is told before anything is submitted."""
    (tmp_path / "deps").mkdir()
    (tmp_path / "link").symlink_to("deps")
    async with open_fake() as (orchestrator, _):
        for source in ("deps", str(tmp_path / "nothing")):
            with pytest.raises(SpecError, match="is not a directory on this host") as caught:
                await orchestrator.submit(
                    JobSpec(command="true", mounts=(Mount(source, "/mnt/data"),))
                )
            assert "mounts[0].source" == caught.value.key
        assert [] == orchestrator.journal.jobs()
        job = await orchestrator.submit(
            JobSpec(command="true", workspace_deps=str(tmp_path / "link"))
        )

        assert str(tmp_path / "deps") == getattr(job.job.spec, "workspace_deps", "")


async def test_a_directory_that_controls_the_host_is_refused_before_anything_is_submitted(
    tmp_path: Path,
) -> None:
    """The state root is one, by whatever name; so is what contains it."""
    async with open_fake() as (orchestrator, _):
        root = orchestrator.root.path
        (tmp_path / "link").symlink_to(root)
        for source in (root, root / "snapshots", root.parent, tmp_path / "link"):
            with pytest.raises(SpecError, match="could control this host") as caught:
                await orchestrator.submit(
                    JobSpec(command="true", mounts=(Mount(str(source), "/mnt/data"),))
                )
            assert "mounts[0].source" == caught.value.key
        assert [] == orchestrator.journal.jobs()


async def test_jobs_mount_what_the_settings_allow(tmp_path: Path) -> None:
    """And nothing else, by any key."""
    (tmp_path / "allowed/deep").mkdir(parents=True)
    async with open_fake(allow_mounts=(tmp_path / "allowed",)) as (orchestrator, _):
        spec = JobSpec(command="true", nix_store=str(tmp_path / "allowed/deep"))
        job = await orchestrator.submit(spec)
        with pytest.raises(
            SpecError, match="is not a directory that jobs of this service may mount"
        ):
            await orchestrator.submit(JobSpec(command="true", nix_store=str(tmp_path)))

        assert Verdict.PASSED == (await job.wait()).verdict


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("true", "str is not a JobSpec"),
        (JobSpec(command="true", timeout_secs="5"), "timeout_secs is '5'"),
        (JobSpec(command="true", cpus=10_000), "cpus is 10000"),
        (JobSpec(command="true", memory="much"), "memory is 'much'"),
        (JobSpec(command="true", cpus=0, writable_workspace=True), "cpus is 0"),
        (JobSpec(command="\udcff"), "command is not Unicode"),
    ],
    ids=str,
)  # fmt: skip
async def test_what_is_no_spec_harms_no_journal(spec: object, words: str) -> None:
    """Constructors look at nothing; not even a refusal of such a spec could be read again."""
    async with open_fake() as (orchestrator, _):
        with pytest.raises(SpecError) as caught:
            await orchestrator.submit(spec)  # type: ignore[arg-type]

        assert str(caught.value).startswith(words)
        assert [] == orchestrator.journal.jobs()


async def test_an_entry_that_nobody_could_read_again_is_not_written(tmp_path: Path) -> None:
    """Whoever brings it hears of it."""
    async with open_fake() as (orchestrator, _):
        job = await orchestrator.submit(PASSES)
        bad = ev.Warned(job=job.id, message=5, at=job.job.phases[0].entered_at, monotonic=0.0)  # type: ignore[arg-type]
        with pytest.raises(Exception, match="Expected `str`"):
            await orchestrator.journal.append(bad)

        assert Verdict.PASSED is (await job.wait()).verdict


@pytest.mark.parametrize("workspace", ["nowhere", "file", "x" * 3000, "a\0b", "loop", b"\xff"])
async def test_a_workspace_that_is_none_is_said_so(workspace: str | bytes, tmp_path: Path) -> None:
    """Whatever is wrong with its name."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / os.fsdecode(b"\xff")).mkdir()
    async with open_fake() as (orchestrator, _):
        with pytest.raises(UsageError, match=r"no such directory|not Unicode"):
            await orchestrator.submit(PASSES, workspace=tmp_path / os.fsdecode(workspace))

        assert [] == orchestrator.journal.jobs()


@pytest.mark.parametrize("path", ["/", "//", "/.", "/usr/..", "root"])
async def test_the_whole_file_system_is_no_workspace(path: str, tmp_path: Path) -> None:
    """By whatever name."""
    (tmp_path / "root").symlink_to("/")
    async with open_fake() as (orchestrator, _):
        with pytest.raises(UsageError, match="the whole file system"):
            await orchestrator.submit(PASSES, workspace=tmp_path / path)


async def test_settings_are_of_where_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may go elsewhere; the journal tells of real paths."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    monkeypatch.chdir(tmp_path)
    settings = Settings(workspace="link", state_root="root")  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path / "conf", spawn=fake)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            job = await orchestrator.submit_and_wait(PASSES)

    assert str((tmp_path / "tree").resolve()) == job.workspace
    assert (tmp_path / "root" / "journal.sqlite3").exists()
