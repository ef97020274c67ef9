"""A way out when pikaci dies, is cancelled, or is late."""

from __future__ import annotations

import json
import signal
import subprocess
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import trio

from orchestrator.contract import contract
from orchestrator.journal import open_journal
from states import events as ev
from states.outcome import Outcome, Verdict
from states.spec import Deadlines, JobSpec
from tests.integration.command import SECS, Command, wait_until
from tests.integration.egress_servers import (
    HERE,
    MIB,
    PORT,
    Echo,
    Silent,
    Web,
    connections,
    python,
    server,
)
from tests.integration.running import Runs

pytestmark = pytest.mark.incus


async def test_a_cancel_ends_the_connections(runs: Runs) -> None:
    """They are in the trace."""
    ended = Event()

    class Held(Echo):
        def handle(self) -> None:
            super().handle()
            ended.set()

    hold = f"""
import socket, time
s = socket.create_connection(("{HERE}", {PORT}))
s.sendall(b"CONNECT {HERE}:%d HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
print(s.recv(100), flush=True)
time.sleep(600)
"""
    with server(Held) as port:
        spec = JobSpec(command=python(hold % port), egress=(f"{HERE}:{port}",))
        async with trio.open_nursery() as nursery:

            async def cancel(entry: ev.Entry) -> None:
                await runs.logged(entry.job, b"200")
                assert not ended.is_set()
                nursery.cancel_scope.cancel()

            await runs.run({"job": spec}, on_running=cancel)
        with open_journal(runs.root.journal) as journal:
            (job,) = [journal.job(row.id) for row in journal.jobs()]
        assert await trio.to_thread.run_sync(partial(ended.wait, 10))
    assert Verdict.CANCELLED is job.verdict
    (found,) = connections(runs, job.id)
    assert (port, False) == (found.port, found.refused)
    assert found.duration_ms > 0


FETCH = """
[jobs.fetch]
egress = ["{here}:{port}"]
command = '''
echo begun
until [ -e /tmp/go ]; do sleep 0.05; done
curl --noproxy '' -sS -o /dev/null -w '%{{http_code}}\\n' --max-time 100 http://{here}:{port}/0
'''
"""


def write_fetch(pikaci: Command, port: int, *, more: str = "") -> None:
    pikaci.write("schema = 1\n" + FETCH.format(here=HERE, port=port) + more)


def kill(running: Any) -> None:
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=SECS)


def test_a_request_waits_while_pikaci_is_dead(pikaci: Command) -> None:
    """It is served by the process that resumes the job; the gap is in the trace, and does no harm."""
    with server(Web, http=True) as port:
        write_fetch(pikaci, port)
        running = pikaci.run_until("running", "run", "fetch")
        wait_until(lambda: b"begun" in pikaci.log_lines())
        kill(running)
        pikaci.open_gate()
        resumed = pikaci("resume")
    assert 0 == resumed.returncode, resumed.stdout + resumed.stderr
    assert b"200" in pikaci.log_lines()
    told = pikaci("trace", "fetch").stdout
    assert "no egress for" in told
    assert "0 connections cut, 0 timed out" in told


def test_a_command_whose_download_pikaci_s_death_cut_is_not_blamed(pikaci: Command) -> None:
    """It ends as infrastructure, and says why."""
    holding = Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(MIB))
            self.end_headers()
            self.wfile.write(bytes(1000))
            holding.set()
            Event().wait(100)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with server(Slow, http=True) as port:
        write_fetch(pikaci, port)
        running = pikaci.run_until("running", "run", "fetch")
        wait_until(lambda: b"begun" in pikaci.log_lines())
        pikaci.open_gate()
        assert holding.wait(60)
        kill(running)
        resumed = pikaci("resume")
    assert 4 == resumed.returncode, resumed.stdout + resumed.stderr
    listed = json.loads(pikaci("list", "--output", "json").stdout)
    shown = pikaci("trace", "fetch").stdout
    assert listed
    assert "had no egress for" in shown
    assert "1 connection was cut" in shown or "1 cut" in shown


def test_a_request_waits_no_longer_than_for_a_daemon(pikaci: Command) -> None:
    """Then the guest says what is wrong, in the first line."""
    with server(Web, http=True) as port:
        write_fetch(pikaci, port, more="[jobs.fetch.deadlines]\ndaemon_secs = 2\n")
        running = pikaci.run_until("running", "run", "fetch")
        wait_until(lambda: b"begun" in pikaci.log_lines())
        kill(running)
        pikaci.open_gate()
        (guest,) = pikaci.leases()

        def answered() -> bool:
            look = ["incus", "exec", "--project", "pikaci", guest, "--", "ls", contract().result]
            done = subprocess.run(look, capture_output=True, timeout=SECS, check=False)
            return done.returncode == 0

        wait_until(answered)
        resumed = pikaci("resume")
    assert b"503" in pikaci.log_lines()
    assert 0 == resumed.returncode


async def test_a_deadline_of_a_job_with_egress_is_its_own(runs: Runs) -> None:
    """A request that hangs is no reason to wait longer."""
    with server(Silent) as port:
        spec = JobSpec(
            command=f"curl --noproxy '' -sS --max-time 600 http://{HERE}:{port}/",
            egress=(f"{HERE}:{port}",),
            timeout_secs=2,
            deadlines=Deadlines(grace_secs=1),
        )
        job = await runs.run_one(spec)
    assert Outcome.TIMED_OUT is job.outcome
    assert Path(job.artifacts or "").exists()
