"""Several hosts at once, each an Incus of its own: this machine's, and one over TLS."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.integration.command import MAKES_AN_IMAGE, Command, wait_until
from tests.integration.tls_host import REMOTE, TlsHost, tls_host

pytestmark = [pytest.mark.incus, pytest.mark.hosts]


@pytest.fixture(scope="module")
def far_of_all() -> Iterator[TlsHost]:
    # Room for the default disk of a job; a host that has less gets none.
    with tls_host(pool_size="20GiB") as made:
        yield made


@pytest.fixture
def pikaci(tmp_path: Path, far_of_all: TlsHost) -> Iterator[Command]:
    """pikaci in a workspace, whose jobs may run on the far host or else here."""
    command = Command(tmp_path)
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(f'[hosts.build]\nremote = "{REMOTE}"\n')
    state = tmp_path / "state"
    trio.run(far_of_all.reached, state / "pikaci/incus")
    command.env |= {
        "PIKACI_HOSTS": str(hosts),
        "PIKACI_HOST": "build,local",
        "XDG_STATE_HOME": str(state),
    }
    yield command
    assert [] == [*command.leases(), *far_of_all.daemon.instances()]
    far_of_all.clear()


def hosts_of(pikaci: Command) -> dict[str, str]:
    """The hosts of the jobs of the newest run, by name."""
    status: Any = json.loads(pikaci("status", "--output", "json").stdout)
    return {job["name"]: job["host"] for job in status["jobs"]}


def test_each_host_runs_as_many_jobs_as_it_has_slots(pikaci: Command) -> None:
    """All of them see the files from here."""
    (pikaci.workspace / "file").write_text("mine\n")
    pikaci.write(
        "schema = 1\n[defaults]\nmemory = '512MiB'\n"
        + "".join(f'[jobs.{name}]\ncommand = "cat file; sleep 8"\n' for name in "ab")
    )

    done = pikaci("run", "--jobs", "1")

    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["", "build"] == sorted(hosts_of(pikaci).values())
    logs = [path.read_text() for path in pikaci.root.glob("jobs/*/attempt-1/guest.log")]
    assert ["mine", "mine"] == [log.splitlines()[-1] for log in logs]


def test_an_image_stays_where_it_was_made(pikaci: Command, far_of_all: TlsHost) -> None:
    """So its user runs there, too, although there is a free slot here; `gc` deletes it there."""
    pikaci.write(MAKES_AN_IMAGE)

    done = pikaci("run", "use")
    hosts = hosts_of(pikaci)
    images = json.loads(
        far_of_all.daemon.incus("image", "list", "--project", "pikaci", "-f", "json")
    )
    freed = pikaci("gc", "--keep", "0")
    left = json.loads(far_of_all.daemon.incus("image", "list", "--project", "pikaci", "-f", "json"))

    assert 0 == done.returncode, done.stdout + done.stderr
    assert {"make": "build", "use": "build"} == hosts
    assert 0 == freed.returncode, freed.stderr
    assert (1, 0) == tuple(sum(not image["aliases"] for image in found) for found in (images, left))


def test_an_image_that_only_this_machine_has_keeps_a_job_here(
    pikaci: Command, far_of_all: TlsHost
) -> None:
    alias = ("--project", "pikaci", "pikaci/dev")
    listed = json.loads(
        far_of_all.daemon.incus("image", "list", "--project", "pikaci", "-f", "json")
    )
    far_of_all.daemon.incus("image", "alias", "delete", *alias)
    try:
        done = pikaci("run", "--", "true")
    finally:
        far_of_all.daemon.incus("image", "alias", "create", *alias, listed[0]["fingerprint"])

    assert 0 == done.returncode, done.stderr
    assert [""] == list(hosts_of(pikaci).values())
    assert "does not run on the host build: image of the job" in pikaci("trace").stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_daemon_that_is_away_stops_no_job(
    pikaci: Command, far_of_all: TlsHost, number: signal.Signals
) -> None:
    """Dead or silent; when it answers again, it gets jobs again."""
    far_of_all.daemon.signal(number)
    try:
        away = pikaci("run", "--", "true")
    finally:
        if number is signal.SIGSTOP:
            far_of_all.daemon.signal(signal.SIGCONT)
        else:
            far_of_all.daemon.start()
    where = list(hosts_of(pikaci).values())
    wait_until(lambda: 0 == pikaci("host", "check", "build").returncode)
    back = pikaci("run", "--", "true")

    assert (0, 0) == (away.returncode, back.returncode), away.stderr + back.stderr
    assert ([""], ["build"]) == (where, list(hosts_of(pikaci).values()))
