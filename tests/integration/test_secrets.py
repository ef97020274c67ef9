"""A job's secrets on a real Incus: the job has them, and nobody else on the host shows them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest
import trio

from orchestrator.journal import open_journal
from orchestrator.settings import open_incus
from states.lifecycle import State
from tests.calls import call
from tests.integration.command import Command

PIKACI = str(Path(sys.executable).with_name("pikaci"))
SECS = 120

JOB = """
schema = 1
[jobs.deploy]
command = '''
printf %s "$TOKEN" | sha256sum
printf %s "$KEY" | sha256sum
echo begun
until [ -e /mnt/gate/open ]; do sleep 0.1; done
'''
timeout_secs = 60
mounts = [{ source = "../gate", path = "/mnt/gate" }]
[jobs.deploy.secrets]
TOKEN = { env = "PIKACI_TEST_HOST_SECRET" }
KEY = { file = "../key" }
"""


def processes() -> dict[str, tuple[str, bytes, bytes]]:
    """Each process of the host by its id: its name, command line and environment."""
    found = {}
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            name = (proc / "comm").read_text().strip()
            found[proc.name] = (
                name,
                (proc / "cmdline").read_bytes(),
                (proc / "environ").read_bytes(),
            )
        except OSError:
            pass  # it has just ended
    return found


def until(word: str, lines: IO[str]) -> str:
    """What is printed up to the line that has this word, or to the end."""
    printed = ""
    for line in lines:
        printed += line
        if word in line:
            break
    return printed


async def configuration(root: Path) -> str:
    """All that Incus has of the instances of a state root."""
    with open_journal(root / "journal.sqlite3") as journal:
        owner = journal.owner
    incus = open_incus()
    listed = await call(
        incus, "list", "--format", "csv", "-c", "n", f"user.pikaci.owner={owner}", deadline_secs=30
    )
    (instance,) = listed.stdout.decode().split()
    shown = await call(incus, "config", "show", "--expanded", f"local:{instance}", deadline_secs=30)
    path = f"local:/1.0/instances/{instance}?project={incus.project}&recursion=1"
    return shown.stdout.decode() + json.dumps(
        (await call(incus, "query", path, deadline_secs=30, in_project=False)).stdout.decode()
    )


@pytest.mark.incus
def test_only_the_job_has_the_values(tmp_path: Path) -> None:
    """While it runs: no command line, no client's environment, no configuration, no stored byte."""
    token, key = secrets.token_hex(16), f"two\n{secrets.token_hex(16)}"
    workspace, gate, root = tmp_path / "ws", tmp_path / "gate", tmp_path / "root"
    workspace.mkdir()
    gate.mkdir()
    (tmp_path / "key").write_text(key + "\n")
    (workspace / "pikaci.toml").write_text(JOB)
    searched = (token.encode(), key.partition("\n")[2].encode())
    run = subprocess.Popen(
        [PIKACI, "run", "-v", "--state-root", str(root)],
        cwd=workspace,
        env={**os.environ, "PIKACI_TEST_HOST_SECRET": token},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Whatever becomes of the checks, the run ends, and this test does not wait for ever.
    watchdog = threading.Timer(SECS, run.kill)
    watchdog.start()
    assert run.stdout is not None
    try:
        printed = until("running", run.stdout)
        with subprocess.Popen(
            [PIKACI, "logs", "--follow", "--state-root", str(root), "deploy"],
            cwd=workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ) as logs:
            assert logs.stdout is not None
            try:
                printed += until("begun", logs.stdout)
                seen = processes()
                configured = trio.run(configuration, root)
            finally:
                (gate / "open").touch()
                logs.stdout.read()
    finally:
        (gate / "open").touch()
        rest = run.stdout.read()
        code = run.wait()
        watchdog.cancel()

    assert 0 == code, printed + rest
    for value in (token, key):
        assert hashlib.sha256(value.encode()).hexdigest() in printed
    clients = [env for name, _, env in seen.values() if name == "incus"]
    stored = [path.read_bytes() for path in root.rglob("*") if path.is_file()]
    assert clients
    for value_bytes in searched:
        assert not any(value_bytes in argv for _, argv, _ in seen.values())
        assert not any(value_bytes in env for env in clients)
        assert value_bytes.decode() not in configured
        assert not any(value_bytes in data for data in stored)
    assert any(b"begun" in data for data in stored)


TWO = """
schema = 1
[defaults]
command = 'sleep 2; test "$TOKEN" = s3cr3t'
secrets = { TOKEN = { env = "PIKACI_TEST_HOST_SECRET" } }
[jobs.one]
[jobs.two]
"""


@pytest.mark.incus
def test_a_job_waits_for_its_secret(pikaci: Command) -> None:
    """Of a run that died, what runs is followed; what had not begun is left, and told of."""
    pikaci.write(TWO)
    pikaci.env["PIKACI_TEST_HOST_SECRET"] = "s3cr3t"
    run = pikaci.run_until("running", "run", "--jobs", "1")
    run.kill()
    run.communicate()
    del pikaci.env["PIKACI_TEST_HOST_SECRET"]

    without = pikaci("resume")
    beside = pikaci("run", "--", "true")
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        waiting = [journal.job(row.id).state for row in journal.unfinished()]
    resumed = pikaci("resume", PIKACI_TEST_HOST_SECRET="s3cr3t")

    assert (2, 0, 0) == (without.returncode, beside.returncode, resumed.returncode)
    assert "the variable PIKACI_TEST_HOST_SECRET is not set" in without.stderr
    assert "1 passed\n" in without.stdout
    assert [State.SUBMITTED] == waiting
    assert "1 passed\n" in resumed.stdout
