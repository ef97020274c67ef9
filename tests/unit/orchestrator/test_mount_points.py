"""Directories that a guest would find empty, or could not mount: told before a job begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import host_paths, jobfile
from orchestrator.errors import UsageError
from orchestrator.mount_points import hidden_mounts, missing_places
from orchestrator.testing import open_fake
from states.errors import SpecError
from states.outcome import Verdict
from states.spec import JobSpec, Mount


def job(*mounts: tuple[Path, str]) -> JobSpec:
    return JobSpec(
        command="true", mounts=tuple(Mount(source=str(one), path=path) for one, path in mounts)
    )


def mounted(monkeypatch: pytest.MonkeyPatch, *points: Path) -> None:
    """Let the host have these mounts, beside `/`."""
    table = {
        number: host_paths._Mount("0:1", "/", str(point), "ext4")
        for number, point in enumerate((Path("/"), *points))
    }
    monkeypatch.setattr(host_paths, "_mounts", lambda: table)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize("path", ["/data/deep", "/data/deep/", "/database", "/other"])
def test_a_mount_may_be_inside_another_that_has_its_directory(data: Path, path: str) -> None:
    """So may one that only begins with the same letters."""
    assert [] == list(missing_places(job((data, "/data"), (data, path))))


@pytest.mark.parametrize("order", [1, -1])
def test_a_mount_without_a_directory_names_both(data: Path, tmp_path: Path, order: int) -> None:
    """Whichever comes first in the list, and the innermost of several around it."""
    (data / "deep").joinpath("link").symlink_to(tmp_path)
    for inner, place in (("/data/deep/x", "x"), ("/data/deep/link", "link")):
        mounts = [(data, "/data"), (data / "deep", "/data/deep"), (tmp_path, inner)][::order]
        (error,) = missing_places(job(*mounts))

        assert f"mounts[{mounts.index((tmp_path, inner))}].path" == error.key
        assert f"'{inner}' is inside mounts[1] ('/data/deep')" in error.brief
        assert f"no directory '{data}/deep/{place}'" in error.brief


async def test_it_is_refused_at_every_door(data: Path, tmp_path: Path) -> None:
    """The job file's error names the job; nothing was begun."""
    file = tmp_path / "pikaci.toml"
    file.write_text(
        'schema = 1\n[jobs.a]\ncommand = "true"\nmounts = [{ source = "data", path = "/data" },'
        ' { source = "data", path = "/data/none" }]\n'
    )
    with pytest.raises(UsageError, match=r"jobs\.a\.mounts\[1\]\.path '/data/none' is inside"):
        jobfile.select(jobfile.load(file), [])
    async with open_fake() as (orchestrator, _):
        with pytest.raises(SpecError, match="is inside"):
            await orchestrator.submit(job((data, "/data"), (data, "/data/none")))
        assert [] == orchestrator.journal.jobs()


def test_mounts_that_a_guest_does_not_get_are_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the source itself, nor what lies beside it; a few of many."""
    (few,) = [data / "deep"]
    mounted(monkeypatch, data, few, data.with_name("data-2") / "x")
    named = hidden_mounts({"a": job((data, "/data")), "b": job((few, "/data"))})
    mounted(monkeypatch, *(data / str(number) for number in range(8)))
    (many,) = hidden_mounts({"a": job((data, "/data"))})

    assert ["a"] == list(named.values())
    (line,) = named
    assert f"jobs.a.mounts[0].source: in the guest, {few} will be empty" in line
    assert "and 3 more will be empty" in many


def test_a_mount_that_the_job_mounts_too_is_not_named(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where a guest would look for it; nor what is below that, which has its own line."""
    deep, deeper = data / "deep", data / "deep" / "er"
    mounted(monkeypatch, data, deep, deeper)

    both = job((data, "/data"), (deep, "/data/deep"))
    elsewhere = job((data, "/data"), (deep, "/data-2/deep"))
    near = job((data, "/data"), (deep, "/data/de"))
    all_three = job((data, "/data/"), (deep, "/data/deep/"), (deeper, "/data/deep/er"))

    (line,) = hidden_mounts({"a": both})
    assert f"jobs.a.mounts[1].source: in the guest, {deeper} will" in line
    for spec in (elsewhere, near):
        assert f"in the guest, {deep}, {deeper} will" in next(iter(hidden_mounts({"a": spec})))
    assert {} == hidden_mounts({"a": all_three})


async def test_a_job_has_the_warning(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there before the job ends, and the job passes all the same."""
    real = host_paths._mounts()
    mount = host_paths._Mount("0:1", "/", str(data / "deep"), "ext4")
    monkeypatch.setattr(host_paths, "_mounts", lambda: {**real, -1: mount})
    async with open_fake() as (orchestrator, _):
        done = await orchestrator.submit_and_wait(job((data, "/data")))
        (warning,) = orchestrator.journal.job(done.id).warnings

    assert Verdict.PASSED is done.verdict
    assert f"{data / 'deep'} will be empty" in warning
