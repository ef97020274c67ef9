"""Connections that break, stall and come back, and daemons that restart: no job is lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.hosts.far_host import FarHost, far_host
from tests.integration.command import AT_THE_GATE, Command, wait_until
from tests.integration.private_daemon import PrivateDaemon

pytestmark = [pytest.mark.incus, pytest.mark.hosts]

LINES = 2000
COMMAND = f"seq {LINES}; mkdir -p /artifacts/out; echo kept > /artifacts/out/file"
# Cuts the connection at the incus command with this number, and at no other.
CUT = """\
#!/bin/sh
number=$(( $(cat {base}/calls) + 1 ))
echo $number > {base}/calls
cut() {{ sleep {delay}; kill -9 $(cat /proc/{sshd}/task/{sshd}/children); }}
[ $number -ne {at} ] || cut &
exec {incus} "$@"
"""


def cut_at(far: FarHost, at: int, delay: float) -> None:
    """Break the connection while the incus command with this number runs."""
    (far.base / "calls").write_text("0")
    program = far.base / "bin/incus"
    incus, sshd = shutil.which("incus"), far.sshd
    program.write_text(CUT.format(base=far.base, sshd=sshd, at=at, delay=delay, incus=incus))
    program.chmod(0o755)


@pytest.mark.parametrize("delay", [0, 0.15])
@pytest.mark.parametrize("at", range(1, 12))
def test_cut_at_any_call_the_job_passes_and_nothing_is_left(
    far: FarHost, pikaci: Command, at: int, delay: float
) -> None:
    """Its log has no gap, and no line twice; its artifacts are here."""
    cut_at(far, at, delay)
    pikaci.write(
        f'schema = 1\n[jobs.a]\ncommand = "{COMMAND}"\nartifacts = ["out/**"]\nretries = 2\n'
    )

    done = pikaci("run", "--output", "json")

    assert 0 == done.returncode, done
    *_, log = sorted(pikaci.root.glob("jobs/*/attempt-*/guest.log"))
    assert [b"%d" % number for number in range(1, LINES + 1)] == log.read_bytes().splitlines()[1:]
    assert "kept\n" == (log.parent / "artifacts/out/file").read_text()


def test_a_connection_that_stalls_is_given_up_and_made_anew(far: FarHost, pikaci: Command) -> None:
    """The other end stops without closing anything, as when a laptop sleeps."""
    far.client("ServerAliveInterval=1", "ServerAliveCountMax=2")
    started = pikaci.run_until("running", "run", "--", f"seq 100; {AT_THE_GATE}; seq 101 200")
    stalled = far.connections()
    far.signal(signal.SIGSTOP)
    try:
        pikaci.open_gate()
        out, err = started.communicate()
    finally:
        for pid in stalled:
            os.kill(pid, signal.SIGKILL)

    assert 0 == started.returncode, err
    assert [*map(str, range(1, 201))] == out.splitlines()


def test_a_host_that_hangs_for_a_minute_loses_no_job(far: FarHost, pikaci: Command) -> None:
    """All of its sshd stops, and takes connections without a word; then it goes on."""
    started = pikaci.run_until("running", "run", "--", f"seq 100; {AT_THE_GATE}; seq 101 200")
    stopped = [far.sshd, *far.connections()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        pikaci.open_gate()
        time.sleep(60)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    out, err = started.communicate()

    assert 0 == started.returncode, err
    assert [*map(str, range(1, 201))] == out.splitlines()


def test_a_job_outlasts_an_sshd_that_is_away(far: FarHost, pikaci: Command) -> None:
    started = pikaci.run_until("running", "run", "--", f"echo a; {AT_THE_GATE}; echo b")
    far.cut()
    far.stop()
    pikaci.open_gate()
    time.sleep(3)
    far.start()
    out, err = started.communicate()

    assert (0, "a\nb\n") == (started.returncode, out), err


def test_a_job_outlasts_a_restart_of_the_daemon_there(
    tmp_path: Path, private_daemon_of_all: PrivateDaemon
) -> None:
    """A daemon that is killed and started anew, at every moment of the job."""
    daemon = private_daemon_of_all
    socket = daemon.directory / "unix.socket"
    shutil.chown(socket, group="incus-admin")
    with far_host(incus_socket=str(socket)) as far:
        pikaci = Command(tmp_path)
        pikaci.env |= far.environment
        started = pikaci.run_until("running", "run", "--", "seq 1000; sleep 8; seq 1001 2000")
        daemon.signal(signal.SIGKILL)
        time.sleep(1)
        daemon.start()
        shutil.chown(socket, group="incus-admin")
        out, err = started.communicate()

        assert 0 == started.returncode, err
        assert [*map(str, range(1, 2001))] == out.splitlines()
        wait_until(lambda: not daemon.instances())
