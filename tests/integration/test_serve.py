"""`pikaci serve` and the commands that talk to it, on the real Incus."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.forks import Forked
from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until
from tests.integration.shells import kill, open_shell, types

pytestmark = pytest.mark.incus

JOBS = """
schema = 1
[defaults]
memory = "512MiB"
[jobs.good]
command = "echo fine"
[jobs.bad]
command = "echo broken; exit 7"
[jobs.slow]
command = "echo begun; sleep 600"
[jobs.short]
command = "echo begun; GATE; echo ended"
[jobs.writable]
command = "true"
writable_workspace = true
""".replace("GATE", AT_THE_GATE)
ENDS = ("submitted", "result_collected")


@pytest.fixture
def served(pikaci: Command) -> Iterator[Command]:
    """A root that a service holds."""
    pikaci.write(JOBS)
    service = pikaci.run_until("serving", "serve")
    yield pikaci
    if service.poll() is None:
        stop(service)


def stop(service: Forked) -> str:
    service.send_signal(signal.SIGTERM)
    out, _ = service.communicate(timeout=SECS)
    assert 0 == service.returncode
    return out


def test_a_shell_in_a_job_of_the_service(served: Command) -> None:
    job = served.run_until("short: running", "run", "short")
    shell = open_shell(served, "short")
    assert ["pikaci short"] == types(shell, 'echo "$(id -un) $PIKACI_JOB"')
    shell.press(b"touch /tmp/go; exit 6\n")

    assert 6 == shell.wait()
    assert 0 == job.wait(SECS)


def test_a_shell_in_a_new_guest_of_the_service(served: Command) -> None:
    """Of a job that passed. The service runs it; if its pikaci is killed, the guest is gone too."""
    assert 0 == served("run", "good").returncode
    before = open_shell(served, "good", "--before")
    assert ["pikaci good-shell"] == types(before, 'echo "$(id -un) $PIKACI_JOB"')
    assert any("echo fine" in line for line in types(before, "history"))
    assert not any(line == "fine" for line in before.all_lines)
    before.press(b"exit 5\n")
    assert 5 == before.wait()
    after = open_shell(served, "good", "--after")
    types(after, "sleep 1")  # who was not seen is waited for
    assert any(line == "fine" for line in after.all_lines)
    after.press(b"exit 6\n")
    assert 6 == after.wait()
    killed = open_shell(served, "good", "--before")
    types(killed, "sleep 1")
    kill(killed)

    wait_until(lambda: [] == served.leases())
    report = json.loads(served("status", "--output", "json").stdout)
    assert [("good-shell", "passed")] == [(job["name"], job["verdict"]) for job in report["jobs"]]


def test_run_gives_its_jobs_to_the_service(served: Command) -> None:
    """And says of them what it says of its own; `rerun` too."""
    done = served("run", "good", "bad")
    again = json.loads(served("rerun", "--failed", "--output", "json").stdout)
    lines = served("run", "good", "--output", "jsonl").stdout.splitlines()
    rejected = served("run", "writable")

    assert 1 == done.returncode
    assert "broken" in done.stdout
    assert "1 passed, 1 failed in " in done.stdout
    assert [("bad", 7)] == [(job["job"], job["exit_code"]) for job in again["jobs"]]
    assert ("submitted", "result_collected") == tuple(
        entry["type"] for entry in map(json.loads, lines) if entry["type"] in ENDS
    )
    assert 2 == rejected.returncode
    assert "does not support writable workspace jobs" in rejected.stderr


def test_ctrl_c_of_a_run_ends_its_jobs_and_not_the_service(served: Command) -> None:
    """The guest is gone, and the next run is taken."""
    run = served.run_until("running", "run", "slow")
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=SECS)
    good = served("run", "good")

    assert 130 == run.returncode
    assert 0 == good.returncode


def test_cancel_reaches_what_the_service_runs(served: Command) -> None:
    """By name, from another process."""
    run = served.run_until("running", "run", "slow")
    done = served("cancel", "slow", "--now")
    run.communicate(timeout=SECS)

    assert (0, 130) == (done.returncode, run.returncode)
    assert "cancelled" in done.stdout


def test_a_service_that_was_restarted_goes_on_with_its_jobs(pikaci: Command) -> None:
    """And who watches one notices a short silence, no more: no line is lost or said twice."""
    pikaci.write(JOBS)
    first = pikaci.run_until("serving", "serve")
    run = pikaci.run_until("running", "run", "short")
    stop(first)
    second = pikaci.run_until("serving", "serve")
    pikaci.open_gate()
    out, _ = run.communicate(timeout=SECS)
    log = pikaci("logs", "short").stdout
    stop(second)

    assert 0 == run.returncode, out
    assert ["begun", "ended"] == log.splitlines()[1:]
    assert [] == pikaci.leases()


def test_a_service_keeps_the_guest_of_a_job_that_asks_for_it(served: Command) -> None:
    """`run` says so, `kept` lists it, a shell enters it and `release` deletes it."""
    served.write(JOBS.replace("[jobs.bad]", '[jobs.bad]\nkeep = "failure"\nkeep_secs = 7200'))
    run = served("run", "bad")
    (kept,) = json.loads(served("kept", "--output", "json").stdout)
    shell = open_shell(served, "bad")
    assert ["pikaci bad"] == types(shell, 'echo "$(id -un) $PIKACI_JOB"')
    shell.press(b"exit\n")
    shell.wait()
    released = served("release", "bad")

    assert 1 == run.stdout.count("guest kept until")
    assert ("bad", "failed") == (kept["name"], kept["verdict"])
    assert 0 == released.returncode
    assert [] == served.leases()


def test_on_tcp_the_token_is_asked_for(pikaci: Command, tmp_path: Path) -> None:
    """Without a token file nothing listens, and the exit code is 2. The log says where the page is."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    pikaci.write(JOBS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    refused = pikaci("serve", "--listen", listen)
    page = f"http://{listen}/"
    serve = ("serve", "--listen", listen, "--token-file", str(token))
    service = pikaci.run_until(f"the page is at {page}\n", *serve)
    try:
        form = httpx.get(page, headers={"Accept": "text/html"})
        bare = httpx.get(f"http://{listen}/v1/jobs")
        known = httpx.get(
            f"http://{listen}/v1/jobs", headers={"Authorization": "Bearer 0123456789abcdef"}
        )
    finally:
        stop(service)

    assert 2 == refused.returncode
    assert "needs --token-file" in refused.stderr
    assert (401, 200) == (bare.status_code, known.status_code)
    assert "<form" in form.text
