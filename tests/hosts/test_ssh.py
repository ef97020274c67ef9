"""Jobs on a host that is reached over ssh."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from orchestrator.journal import open_journal
from tests.hosts.far_host import NAME, FarHost, far_host
from tests.integration.command import AT_THE_GATE, Command

pytestmark = pytest.mark.incus


def test_a_job_runs_there_on_the_files_from_here(far: FarHost, pikaci: Command) -> None:
    """Its log and its exit code come back; the guest mounts a directory of that host."""
    (pikaci.workspace / "private").write_text("mine\n")
    (pikaci.workspace / "private").chmod(0o600)

    done = pikaci("run", "--", "cat private; grep ' /workspace/snapshot ' /proc/mounts; exit 3")

    assert (1, "mine") == (done.returncode, done.stdout.splitlines()[0])
    assert " ro," in done.stdout
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        (row,) = journal.jobs()
        snapshot = journal.job(row.id).snapshot
    assert snapshot is not None
    assert NAME == row.host
    assert ["private"] == os.listdir(far.directory / "trees" / snapshot.hash / "tree")


@pytest.mark.parametrize("uid", [1000, 54321])
def test_whoever_logs_in_a_job_can_read_and_its_scratch_copy_is_its_own(
    tmp_path: Path, uid: int
) -> None:
    """Where the user there cannot give files to the job's user, trees are volumes."""
    pikaci = Command(tmp_path)
    (pikaci.workspace / "directory").mkdir(mode=0o700)
    (pikaci.workspace / "directory/private").write_text("mine\n")
    (pikaci.workspace / "directory/private").chmod(0o600)
    command = "stat -c '%a %U' directory/private; echo more >> directory/private; touch directory/b"
    with far_host(uid=uid) as far:
        pikaci.env |= far.environment
        done = pikaci("run", "--scratch", "--", command)
        again = pikaci("run", "--", "cat directory/private")

        assert (0, "600 pikaci\n") == (done.returncode, done.stdout), done
        assert (0, "mine\n") == (again.returncode, again.stdout), again
        assert (uid == 1000) == (far.directory / "trees").exists()
        assert [] == pikaci.leases()


def test_a_job_whose_process_was_killed_goes_on_there(far: FarHost, pikaci: Command) -> None:
    """`resume` needs no word of the host: the journal has it."""
    command = f"echo before; {AT_THE_GATE}; echo after"
    started = pikaci.run_until("running", "run", "--", command)
    started.send_signal(signal.SIGKILL)
    started.communicate()
    pikaci.open_gate()
    del pikaci.env["PIKACI_HOST"]

    done = pikaci("resume")

    assert 0 == done.returncode, done.stderr
    assert [b"before", b"after"] == pikaci.log_lines(), done


def test_a_connection_that_breaks_is_made_anew(far: FarHost, pikaci: Command) -> None:
    """The log has no gap, and no line twice."""
    command = f"seq 1000; {AT_THE_GATE}; seq 1001 2000"
    started = pikaci.run_until("running", "run", "--", command)
    far.cut()
    pikaci.open_gate()
    out, err = started.communicate()

    assert 0 == started.returncode, err
    assert [*map(str, range(1, 2001))] == out.splitlines()
