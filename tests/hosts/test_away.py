"""A host that cannot be reached when somebody looks after its jobs: nothing of them is lost."""

from __future__ import annotations

import signal

import pytest

from orchestrator.journal import open_journal
from states import events as ev
from tests.hosts.far_host import FarHost
from tests.integration.command import AT_THE_GATE, Command

pytestmark = [pytest.mark.incus, pytest.mark.hosts]

CANNOT = "the host build (pikaci-far-"


def entries(pikaci: Command, job: str) -> list[ev.Entry]:
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        return [entry for _, entry in journal.entries(job)]


def leave(far: FarHost, pikaci: Command) -> str:
    """The id of a job that runs there, whose process was killed; then the host is away."""
    command = f"echo before; {AT_THE_GATE}; echo after"
    started = pikaci.run_until("running", "run", "--", command)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    far.cut()
    far.stop()
    del pikaci.env["PIKACI_HOST"]
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        (row,) = journal.jobs()
    return row.id


def test_its_jobs_stay_as_they_are_whoever_looks_after_them(far: FarHost, pikaci: Command) -> None:
    """Each command says in one line that it is away; later the job goes to its own end."""
    job = leave(far, pikaci)
    before = entries(pikaci, job)

    for words in (["resume"], ["reap"], ["gc"], ["reap", "--expired"]):
        done = pikaci(*words)

        assert 4 == done.returncode, done
        (said,) = [line for line in done.stderr.splitlines() if CANNOT in line]
        assert "cannot be reached: ssh: connect to host" in said, done
        assert "Traceback" not in done.stderr
    local = pikaci("run", "--", "true")

    assert 0 == local.returncode, local
    assert before == entries(pikaci, job)
    far.start()
    pikaci.open_gate()
    done = pikaci("resume")
    assert 0 == done.returncode, done
    assert [b"before", b"after"] in [
        log.read_bytes().splitlines()[1:] for log in pikaci.root.glob("jobs/*/attempt-1/guest.log")
    ]


def test_a_cancellation_is_completed_when_it_is_back(far: FarHost, pikaci: Command) -> None:
    leave(far, pikaci)

    done = pikaci("cancel", "--all")

    assert 4 == done.returncode, done
    assert CANNOT in done.stderr
    assert "pikaci resume" in done.stderr
    assert 1 == len(pikaci.leases())
    far.start()
    assert 130 == pikaci("resume").returncode
