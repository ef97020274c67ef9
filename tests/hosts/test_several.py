"""Several hosts at once: this machine, and one that is reached over ssh."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from typing import Any

import pytest

from orchestrator.journal import open_journal
from tests.hosts.far_host import NAME, FarHost
from tests.integration.command import AT_THE_GATE, Command, wait_until

pytestmark = pytest.mark.incus

JOBS = f"""
schema = 1
[defaults]
memory = "512MiB"
[jobs.make]
command = "mkdir /artifacts/out; echo made > /artifacts/out/it"
output = "/artifacts/out"
host = "local"
[jobs.use]
command = "cat /mnt/it/it"
mounts = [{{ source = {{ job = "make" }}, path = "/mnt/it" }}]
host = "{NAME}"
[jobs.typo]
command = "true"
host = "bulid"
[jobs.first]
command = "{AT_THE_GATE}"
[jobs.second]
command = "true"
"""


def documents(pikaci: Command) -> dict[str, Any]:
    """The jobs of the newest run, by name, once there is one."""
    status = pikaci("status", "--output", "json").stdout
    jobs = json.loads(status)["jobs"] if status else []
    return defaultdict(lambda: defaultdict(str), {job["name"]: job for job in jobs})


def test_a_tree_that_was_made_here_is_used_there(far: FarHost, pikaci: Command) -> None:
    """Each job on the host that it names; where it was is shown."""
    pikaci.write(JOBS)

    done = pikaci("run", "use")

    assert 0 == done.returncode, done.stdout + done.stderr
    jobs = documents(pikaci)
    assert ("", NAME) == (jobs["make"]["host"], jobs["use"]["host"])
    assert b"made\n" == pikaci("logs", "use").stdout.encode()[-5:]
    assert f"  {NAME}  " in pikaci("status").stdout


def test_a_host_that_nobody_has_is_one_line(far: FarHost, pikaci: Command) -> None:
    """It has the file, the key and what there is; nothing was touched."""
    pikaci.write(JOBS)

    done = pikaci("run", "typo")

    assert 2 == done.returncode
    assert (
        f"{pikaci.workspace}/pikaci.toml: jobs.typo.host cannot be used: there is no host 'bulid' in"
        in (done.stderr)
    )
    assert f"allowed: one of local, {NAME}" in done.stderr
    assert not pikaci.root.exists()


def test_a_job_takes_the_host_that_has_a_free_slot(far: FarHost, pikaci: Command) -> None:
    pikaci.write(JOBS)
    pikaci.env["PIKACI_HOST"] = f"{NAME},local"

    run = pikaci.start("run", "--jobs", "1", "first", "second")
    wait_until(lambda: documents(pikaci)["second"]["verdict"] and 1 == len(pikaci.leases()))
    pikaci.open_gate()
    _, err = run.communicate()

    assert 0 == run.returncode, err
    jobs = documents(pikaci)
    assert (NAME, "") == (jobs["first"]["host"], jobs["second"]["host"])


def test_a_host_that_is_down_stops_no_job_of_another(far: FarHost, pikaci: Command) -> None:
    """Neither a new one, nor one that is resumed; its own job goes on when it is back."""
    pikaci.write(JOBS)
    pikaci.env["PIKACI_HOST"] = f"{NAME},local"
    run = pikaci.start("run", "--jobs", "1", "first")
    wait_until(lambda: "running" == documents(pikaci)["first"]["state"])
    run.send_signal(signal.SIGKILL)
    run.communicate()
    far.go_down()

    done = pikaci("run", "second")
    waiting = pikaci.start("resume")
    far.start()
    pikaci.open_gate()
    _, err = waiting.communicate()

    assert 0 == done.returncode, done.stdout + done.stderr
    assert 0 == waiting.returncode, err
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        hosts = {row.name: row.host for row in journal.jobs()}
    assert {"first": NAME, "second": ""} == hosts
