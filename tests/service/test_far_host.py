"""A service whose jobs run on another host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from orchestrator import Orchestrator, Settings
from orchestrator.hosts import find_host
from orchestrator.incus import Incus
from orchestrator.service.app import make_app
from orchestrator.service.readiness import Readiness
from tests.unit.orchestrator.fake_hosts import FakeHosts, open_fake_hosts


@pytest.fixture
async def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeHosts]:
    async with open_fake_hosts(tmp_path, monkeypatch, "build") as made:
        yield made


@pytest.fixture
async def orchestrator(tmp_path: Path, hosts: FakeHosts) -> AsyncIterator[Orchestrator]:
    (tmp_path / "ws").mkdir()
    settings = Settings(tmp_path / "ws", state_root=tmp_path / "root", host=find_host("build"))
    incus = Incus(tmp_path / "conf", spawn=hosts)
    async with Orchestrator.open(settings, incus=incus, exclusive=True) as opened:
        yield opened


@pytest.fixture
async def http(orchestrator: Orchestrator) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=make_app(orchestrator))
    async with httpx.AsyncClient(transport=transport, base_url="http://pikaci") as client:
        yield client


async def test_its_jobs_run_there(
    orchestrator: Orchestrator, hosts: FakeHosts, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    jobs = {"job": {"command": "echo one"}}
    answer = await http.post("/v1/runs", json={"workspace": str(tmp_path / "ws"), "jobs": jobs})

    assert 201 == answer.status_code, answer.text
    job = await orchestrator.job(answer.json()["jobs"][0]["id"]).wait()
    assert ("build", "passed") == (job.host, job.verdict)
    assert ["build"] == hosts.creates


async def test_a_directory_of_that_host_is_refused(http: httpx.AsyncClient, tmp_path: Path) -> None:
    """Although there is one of this name here."""
    jobs = {"job": {"command": "true", "mounts": [{"source": "/srv", "path": "/mnt/it"}]}}
    answer = await http.post("/v1/runs", json={"workspace": str(tmp_path / "ws"), "jobs": jobs})

    assert 422 == answer.status_code
    assert "would be a directory of the host build" in answer.json()["title"]


async def test_without_that_host_it_is_not_ready(hosts: FakeHosts, http: httpx.AsyncClient) -> None:
    """It is alive; the daemon of this machine does not count."""
    hosts["build"].kill_daemon()
    away, alive = await http.get("/readyz"), await http.get("/healthz")
    hosts["build"].restart_daemon()
    hosts["local"].kill_daemon()
    back = await http.get("/readyz")
    hosts["local"].restart_daemon()

    assert (503, 200, 200) == (away.status_code, alive.status_code, back.status_code)
    assert "on build" in away.json()["title"]


async def test_a_way_that_does_not_open_is_told_in_time(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    class Never:
        async def up(self) -> None:
            await trio.sleep_forever()

        def environment(self) -> dict[str, str]:
            return {}

    monkeypatch.setattr(orchestrator.incus, "_link", Never())
    with pytest.raises(Exception, match="the way to the host build is not open"):
        await Readiness(orchestrator, trio.Event()).check()


async def test_a_run_and_a_job_may_name_other_hosts(
    orchestrator: Orchestrator, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Those of the service's settings; another name is refused before anything is begun."""

    async def submit(job: dict[str, Any], **more: Any) -> httpx.Response:
        run = {"workspace": str(tmp_path / "ws"), "jobs": {"job": {"command": "true", **job}}}
        return await http.post("/v1/runs", json={**run, **more})

    async def host(answer: httpx.Response) -> str:
        return (await orchestrator.job(answer.json()["jobs"][0]["id"]).wait()).host

    assert "" == await host(await submit({}, hosts=["local", "build"]))
    assert "" == await host(await submit({"host": "local"}))
    assert "build" == await host(await submit({"host": "build"}, hosts=["local"]))
    unknown = [await submit({"host": "none"}), await submit({}, hosts=["none"])]
    assert [422, 400] == [answer.status_code for answer in unknown]
    assert all("there is no host 'none' in" in answer.json()["title"] for answer in unknown)


async def test_one_of_several_hosts_is_enough_to_be_ready(tmp_path: Path, hosts: FakeHosts) -> None:
    """The answer names the other."""
    (tmp_path / "ws").mkdir()
    names = ("build", "local")
    settings = Settings(tmp_path / "ws", state_root=tmp_path / "root", hosts=names)
    incus = Incus(tmp_path / "conf", spawn=hosts)
    async with Orchestrator.open(settings, incus=incus) as opened:
        transport = httpx.ASGITransport(app=make_app(opened))
        async with httpx.AsyncClient(transport=transport, base_url="http://pikaci") as http:
            hosts["build"].kill_daemon()
            ready = await http.get("/readyz")
            hosts["build"].restart_daemon()

    assert 200 == ready.status_code
    assert ready.text.startswith("ok\nwithout the host build: ")
