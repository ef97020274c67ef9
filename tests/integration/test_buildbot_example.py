"""The Buildbot step of docs/examples, with a real master and a real worker on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.command import PIKACI, SECS, Command, wait_until

pytestmark = [pytest.mark.incus, pytest.mark.examples]

PROJECT = Path(__file__).parents[2]
BUILDBOT = PROJECT / "build" / "buildbot" / "bin"
SUCCESS, FAILURE, RETRY, CANCELLED = 0, 2, 5, 6
MASTER = """
import sys
sys.path.insert(0, "{examples}")
from buildbot.plugins import schedulers, util, worker
from buildbot_step import Pikaci

COMMANDS = {{
    "passes": ("echo left >/artifacts/out", []),
    "fails": ("exit 7", []),
    "late": ("sleep 600", ["--timeout", "1s"]),
    "waits": ("test -e second || {{ echo begun; sleep 600; }}", []),
}}


def builder(name, command, flags, **env):
    step = Pikaci(command, flags=["--memory", "512MiB", *flags])
    factory = util.BuildFactory([step])
    return util.BuilderConfig(name=name, workernames=["w"], factory=factory, env=env)


BuildmasterConfig = {{
    "protocols": {{"pb": {{"port": "tcp:{pb}:interface=127.0.0.1"}}}},
    "workers": [worker.Worker("w", "secret")],
    "builders": [
        *(builder(name, *rest) for name, rest in COMMANDS.items()),
        builder("fault", "true", [], INCUS_SOCKET="/nonexistent"),
    ],
    "schedulers": [schedulers.ForceScheduler(name="force", builderNames=[*COMMANDS, "fault"])],
    "www": {{"port": "tcp:{www}:interface=127.0.0.1"}},
    "buildbotURL": "http://127.0.0.1:{www}/",
    "buildbotNetUsageData": None,
    "db": {{"db_url": "sqlite:///state.sqlite"}},
}}
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Buildbot:
    """A master and its worker, over the master's HTTP API."""

    def __init__(self, base: Path, http: httpx.Client) -> None:
        self.base = base
        self.http = http

    def builds(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/builds").json()["builds"]
        return found

    def post(self, path: str, method: str, **params: Any) -> Any:
        call = {"id": 1, "jsonrpc": "2.0", "method": method, "params": params}
        return self.http.post(path, json=call).json()["result"]

    def begin(self, builder: str) -> int:
        """Force a build; its id, when it has begun."""
        request, _ = self.post(
            "/forceschedulers/force", "force", builderNames=[builder], builderid=0
        )

        def begun() -> int | None:
            path = f"/buildsets/{request}"
            self.http.get(path).raise_for_status()
            requests = self.http.get("/buildrequests").json()["buildrequests"]
            ours = [one["buildrequestid"] for one in requests if one["buildsetid"] == request]
            return next((b["buildid"] for b in self.builds() if b["buildrequestid"] in ours), None)

        wait_until(begun)
        found = begun()
        assert found is not None
        return found

    def result(self, build: int) -> int:
        """The build's result, when it has ended."""
        wait_until(lambda: self.http.get(f"/builds/{build}").json()["builds"][0]["complete"])
        found: int = self.http.get(f"/builds/{build}").json()["builds"][0]["results"]
        return found

    def run(self, builder: str) -> int:
        return self.result(self.begin(builder))


@pytest.fixture
def buildbot(pikaci: Command, tmp_path: Path) -> Iterator[Buildbot]:
    pb, www = free_ports(2)
    path = os.pathsep.join([str(Path(PIKACI).parent), pikaci.env["PATH"]])
    env = {name: value for name, value in pikaci.env.items() if name != "PIKACI_STATE_ROOT"}
    env["PATH"] = path

    def call(program: str, *words: str) -> None:
        argv = [str(BUILDBOT / program), *words]
        subprocess.run(argv, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=SECS)

    call("buildbot", "create-master", "master")
    examples = PROJECT / "docs" / "examples"
    config = MASTER.format(examples=examples, pb=pb, www=www)
    (tmp_path / "master" / "master.cfg").write_text(config)
    call("buildbot-worker", "create-worker", "worker", f"127.0.0.1:{pb}", "w", "secret")
    with ExitStack() as running:
        for program, directory in (("buildbot", "master"), ("buildbot-worker", "worker")):
            log = running.enter_context((tmp_path / f"{directory}.log").open("wb"))
            argv = [str(BUILDBOT / program), "start", "--nodaemon", directory]
            process = subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.kill)
        http = httpx.Client(base_url=f"http://127.0.0.1:{www}/api/v2", timeout=SECS)
        made = Buildbot(tmp_path, running.enter_context(http))

        def connected() -> bool:
            """The master lists its workers a moment after it answers."""
            try:
                workers = http.get("/workers").json()["workers"]
            except httpx.TransportError:
                return False
            return any(worker["connected_to"] for worker in workers)

        wait_until(connected)
        yield made


def root(buildbot: Buildbot, pikaci: Command, builder: str) -> Path:
    """The state root of a builder, which `pikaci` looks at from now on."""
    pikaci.root = buildbot.base / "worker" / builder / "pikaci-state"
    return pikaci.root


def test_a_build_ends_as_its_job_does(buildbot: Buildbot, pikaci: Command) -> None:
    """Passed, failed, timed out; what the command left is beside the build. Nothing is left."""
    ends = {name: buildbot.run(name) for name in ("passes", "fails", "late")}
    fault = buildbot.result(buildbot.begin("fault"))

    assert {"passes": SUCCESS, "fails": FAILURE, "late": FAILURE} == ends
    assert RETRY == fault
    artifact = buildbot.base / "worker" / "passes" / "pikaci-artifacts" / "out"
    assert "left\n" == artifact.read_text()
    for name in ends:
        assert (root(buildbot, pikaci, name) / "journal.sqlite3").exists()
        assert [] == pikaci.leases()


def test_a_build_is_stopped_and_killed(buildbot: Buildbot, pikaci: Command) -> None:
    """A stopped one leaves no guest; one whose pikaci was killed none after the next build."""
    state = root(buildbot, pikaci, "waits")
    stopped = buildbot.begin("waits")
    wait_until(lambda: b"begun" in pikaci.log_lines())
    buildbot.post(f"/builds/{stopped}", "stop", reason="asked for")
    ended = buildbot.result(stopped)
    left = pikaci.leases()

    killed = buildbot.begin("waits")
    wait_until(pikaci.leases)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        environment = Path("/proc", pid, "environ")
        try:
            if f"PIKACI_STATE_ROOT={state}".encode() in environment.read_bytes().split(b"\0"):
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            continue
    assert FAILURE == buildbot.result(killed)
    (buildbot.base / "worker" / "waits" / "build" / "second").touch()

    assert (CANCELLED, []) == (ended, left)
    assert SUCCESS == buildbot.run("waits")
    assert [] == pikaci.leases()
