"""The command, interrupted and killed while a machine is made, boots and runs."""

from __future__ import annotations

import hashlib
import json
import secrets
import signal

import pytest

from tests.forks import Forked
from tests.integration import command as container_command
from tests.integration.command import AT_THE_GATE, Command, wait_until

pytestmark = pytest.mark.vm

GATED = f"""
[jobs.gated]
command = "echo one; {AT_THE_GATE}; echo two; exit 7"
"""
# Words of `run -v`, one for each state that a job can be left in.
STATES = ("creating", "starting", "running")


def _ended(process: Forked) -> str:
    out, err = process.communicate(timeout=container_command.SECS)
    return out + err


def _write(pikaci: Command, more: str) -> None:
    pikaci.write((pikaci.workspace / "pikaci.toml").read_text() + more)


@pytest.mark.parametrize("state", STATES)
def test_a_killed_run_is_resumed(pikaci: Command, state: str) -> None:
    """From wherever it was, to the job's own end; nothing is left."""
    _write(pikaci, GATED)
    running = pikaci.run_until(state, "run", "gated")
    running.kill()
    _ended(running)

    resumed = pikaci.start("resume")
    wait_until(pikaci.log_lines)
    pikaci.open_gate()
    said = _ended(resumed)

    assert 1 == resumed.returncode, said
    assert ["one", "two"] == pikaci("logs").stdout.splitlines()[1:]


@pytest.mark.parametrize("state", STATES)
def test_an_interrupted_run_is_cancelled(pikaci: Command, state: str) -> None:
    """The machine goes, while it boots too; nothing is left for a resume."""
    _write(pikaci, GATED)
    running = pikaci.run_until(state, "run", "gated")
    running.send_signal(signal.SIGINT)
    said = _ended(running)

    assert 130 == running.returncode, said
    assert [] == pikaci.leases()
    assert "no job to resume" in pikaci("resume").stdout


SECRET = """
[jobs.deploy]
command = 'printf %s "$TOKEN" | sha256sum; printenv | grep -c PIKACI_TEST || true'
secrets = { TOKEN = { env = "PIKACI_TEST_HOST_SECRET" } }
"""


def test_a_secret_reaches_the_job_alone(pikaci: Command) -> None:
    """By the exec's stdin: no file of the state root and no key of the instance has it."""
    _write(pikaci, SECRET)
    value = secrets.token_hex(16)
    done = pikaci("run", "deploy", PIKACI_TEST_HOST_SECRET=value)

    assert 0 == done.returncode, done.stderr
    lines = pikaci("logs").stdout.splitlines()[1:]
    assert [hashlib.sha256(value.encode()).hexdigest(), "0"] == [line.split()[0] for line in lines]
    files = [path for path in pikaci.root.rglob("*") if path.is_file()]
    assert not any(value.encode() in path.read_bytes() for path in files)


WRONG = """
[jobs.wrong]
image = "pikaci/dev"
command = "true"
"""


def test_a_container_s_image_is_refused(pikaci: Command) -> None:
    """Both types are named, and nothing is made."""
    _write(pikaci, WRONG)
    done = pikaci("run", "wrong", "--output", "json")

    assert done.returncode in (2, 4)
    assert "virtual-machine" in done.stdout + done.stderr
    assert "container" in done.stdout + done.stderr


KEPT = """
[jobs.kept]
command = "exit 3"
"""


def test_a_failed_machine_is_kept(pikaci: Command) -> None:
    """With the way into it; it is still there, and goes when it is asked to."""
    _write(pikaci, KEPT)
    done = pikaci("run", "kept", "--keep-on-failure")
    (kept,) = pikaci.leases()

    assert 1 == done.returncode, done.stderr
    assert "open a shell with: pikaci shell" in done.stdout + done.stderr
    pikaci.incus("exec", kept, "--", "test", "-d", "/workspace/snapshot")
    pikaci.incus("delete", "--force", kept)
    assert 0 == pikaci("reap").returncode
    assert json.loads(pikaci("list", "--output", "json").stdout)
