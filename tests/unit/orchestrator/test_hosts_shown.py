"""Where a job ran, as people and programs are told. Of jobs on this machine nothing is said."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from orchestrator import JobSpec, Orchestrator, Request, Settings
from orchestrator.cli import pikaci, run_table
from orchestrator.hosts import find_host
from orchestrator.incus import Host, Incus
from orchestrator.journal import open_journal
from orchestrator.service.app import make_app
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import fold
from tests.samples import PATH, sample_life
from tests.unit.orchestrator.fake_hosts import open_fake_hosts

SPEC = JobSpec(command="echo fine")


@pytest.fixture
async def runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Orchestrator, list[str]]]:
    """A state root with a run on this machine, and one on the host `build`."""
    (tmp_path / "ws").mkdir()
    ids = []
    async with open_fake_hosts(tmp_path, monkeypatch, "build") as hosts:
        for host in (Host(), find_host("build")):
            settings = Settings(tmp_path / "ws", state_root=tmp_path / "root", host=host)
            incus = Incus(tmp_path / "conf", spawn=hosts)
            async with Orchestrator.open(settings, incus=incus) as orchestrator:
                run = await orchestrator.submit_run(
                    Request(tmp_path / "ws", {"one": SPEC, "two": SPEC})
                )
                for job in run.jobs:
                    await job.wait()
                ids.append(run.id)
        async with Orchestrator.open(settings, incus=incus) as orchestrator:
            yield orchestrator, ids


def said(orchestrator: Orchestrator, *words: str) -> str:
    root = ("--state-root", str(orchestrator.root.path))
    return CliRunner().invoke(pikaci, [*words, *root], catch_exceptions=False).output


async def test_people_see_the_host(runs: tuple[Orchestrator, list[str]]) -> None:
    orchestrator, (_, far) = runs
    heads, row, *_ = said(orchestrator, "list").splitlines()
    assert ["RUN", "NO", "WHEN", "HOST", "TIME", "JOBS"] == heads.split()
    assert "  build  " in row
    assert f"{far}.1  one  passed  on build" in said(orchestrator, "list", "--jobs")
    heads, row, *_ = said(orchestrator, "status", far).splitlines()
    assert ["JOB", "NAME", "STATE", "HOST", "QUEUED", "TIME"] == heads.split()
    assert "  build  " in row
    assert f"   job {far}.1, run {far} on build" in said(orchestrator, "trace", f"{far}.1")
    assert 2 == said(orchestrator, "trace", far).count("| on build\n")


async def test_of_this_machine_nothing_is_said(runs: tuple[Orchestrator, list[str]]) -> None:
    """But as another in the same list has a host."""
    orchestrator, (local, _) = runs
    shown = [said(orchestrator, verb, local) for verb in ("status", "trace")]
    shown.append(said(orchestrator, "trace", f"{local}.1"))
    assert not [text for text in shown if "local" in text or "HOST" in text or "| on " in text]
    of_run = next(
        line for line in said(orchestrator, "list").splitlines() if line.startswith(local)
    )
    assert "  local  " in of_run


async def test_programs_see_the_host(runs: tuple[Orchestrator, list[str]]) -> None:
    """In the command's documents, and in the service's; it is empty for this machine."""
    orchestrator, ids = runs
    transport = httpx.ASGITransport(app=make_app(orchestrator))
    async with httpx.AsyncClient(transport=transport, base_url="http://pikaci") as http:
        for run, host in zip(ids, ("", "build"), strict=True):
            documents = [
                json.loads(said(orchestrator, "status", run, "--output", "json"))["jobs"][0],
                json.loads(said(orchestrator, "trace", f"{run}.1", "--output", "json")),
                json.loads(said(orchestrator, "trace", run, "--output", "json"))["jobs"][0],
                (await http.get(f"/v1/jobs/{run}.1")).json(),
            ]
            assert [(host, "")] * 4 == [(one["host"], one["member"]) for one in documents]
            page = (await http.get(f"/jobs/{run}.1")).text
            assert bool(host) == ("<span>on build</span>" in page) == ("<dt>host" in page)
            page = (await http.get(f"/runs/{run}")).text
            assert (2 if host else 0) == page.count('<span class="soft">on build</span>')


MEMBER = "a-member-with-a-long-name"


def life_on_a_member() -> list[ev.AnyEvent]:
    life = sample_life(*PATH)
    reset = next(
        number for number, event in enumerate(life) if isinstance(event, ev.ArtifactsReset)
    )
    made = next(n for n, event in enumerate(life) if isinstance(event, ev.DevicesConfigured))
    life[reset] = msgspec.structs.replace(life[reset], host="farm")
    life[made] = msgspec.structs.replace(life[made], member=MEMBER)
    return life


async def test_a_list_of_jobs_has_their_members(tmp_path: Path) -> None:
    root = StateRoot(tmp_path)
    root.make()
    with open_journal(root.journal) as journal:
        for event in life_on_a_member():
            await journal.append(event)
    output = CliRunner().invoke(pikaci, ["list", "--jobs", "--state-root", str(tmp_path)]).output

    heads, run, job = output.splitlines()
    assert "HOST" in heads
    assert "  farm  " in run
    assert job.endswith(f"  on farm/{MEMBER}")


def test_a_member_of_a_cluster_is_named_with_its_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a narrow terminal the line is not wrapped."""
    job = fold(life_on_a_member())
    monkeypatch.setattr(run_table, "_width", lambda: 80)
    run_table.print_jobs([job] * 2)
    wide = capsys.readouterr().out
    monkeypatch.setattr(run_table, "_width", lambda: 60)
    run_table.print_jobs([job] * 2)
    narrow = capsys.readouterr().out

    assert f"farm/{MEMBER}" in wide
    assert "farm" in narrow
    assert max(map(len, wide.splitlines())) < 80
    assert max(map(len, narrow.splitlines())) < 60
