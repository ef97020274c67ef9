"""`pikaci serve` on a host that is reached over ssh."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from orchestrator.journal import open_journal
from tests.forks import Forked
from tests.hosts.far_host import NAME, FarHost
from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until

pytestmark = pytest.mark.incus


class Service:
    """A service of the workspace; `http` is its client."""

    def __init__(self, pikaci: Command) -> None:
        self._pikaci = pikaci
        self.process: Forked
        self.start()
        transport = httpx.HTTPTransport(uds=str(pikaci.root / "service.sock"))
        self.http = httpx.Client(transport=transport, base_url="http://pikaci", timeout=SECS)

    def start(self) -> None:
        self.process = self._pikaci.run_until("serving", "serve")

    def end(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.communicate(timeout=SECS)

    def submit(self, command: str) -> str:
        jobs = {"job": {"command": command, "memory": "512MiB"}}
        answer = self.http.post(
            "/v1/runs", json={"workspace": str(self._pikaci.workspace), "jobs": jobs}
        )
        assert 201 == answer.status_code, answer.text
        id: str = answer.json()["jobs"][0]["id"]
        return id

    def job(self, id: str) -> Any:
        return self.http.get(f"/v1/jobs/{id}").json()


@pytest.fixture
def service(pikaci: Command) -> Iterator[Service]:
    made = Service(pikaci)
    yield made
    made.end(signal.SIGTERM)


def test_a_killed_service_goes_on_with_its_job_there(pikaci: Command, service: Service) -> None:
    id = service.submit(f"echo before; {AT_THE_GATE}; echo after")
    wait_until(lambda: "running" == service.job(id)["state"])
    service.end(signal.SIGKILL)
    pikaci.open_gate()
    service.start()
    wait_until(lambda: service.job(id)["verdict"])

    assert "passed" == service.job(id)["verdict"]
    assert [b"before", b"after"] == pikaci.log_lines()
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        (row,) = journal.jobs()
    assert NAME == row.host


def test_it_tells_that_the_way_is_closed_and_opens_it_again(far: FarHost, service: Service) -> None:
    """It is alive meanwhile, and its job does not notice."""
    ready = service.http.get("/readyz")
    id = service.submit("seq 1000; sleep 4; seq 1001 2000")
    wait_until(lambda: "running" == service.job(id)["state"])
    far.go_down()
    wait_until(lambda: 503 == service.http.get("/readyz").status_code)
    closed, alive = service.http.get("/readyz"), service.http.get("/healthz")
    far.start()
    wait_until(lambda: 200 == service.http.get("/readyz").status_code)
    wait_until(lambda: service.job(id)["verdict"])

    assert (200, 503, 200) == (ready.status_code, closed.status_code, alive.status_code)
    assert NAME in closed.json()["title"]
    assert "passed" == service.job(id)["verdict"]
    log = service.http.get(f"/v1/jobs/{id}/log").content.splitlines()[1:]
    assert [b"%d" % number for number in range(1, 2001)] == log


def test_cancel_reaches_what_it_runs_there(pikaci: Command, service: Service) -> None:
    """The fixture looks for instances."""
    id = service.submit("sleep 600")
    wait_until(lambda: "running" == service.job(id)["state"])

    done = pikaci("cancel", id, "--now")

    assert 0 == done.returncode, done.stderr
    assert "cancelled" == service.job(id)["verdict"]
