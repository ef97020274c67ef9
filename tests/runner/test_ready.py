"""The script by which a guest announces itself to its host, with a daemon that answers, or not."""

from __future__ import annotations

import pytest

from .daemon import Daemon
from .guest import CONTRACT, Guest, wait_for

TOLD = b'PATCH /1.0 {"state":"Ready"}\n'


@pytest.fixture
def daemon(guest: Guest) -> Daemon:
    return Daemon(guest, "pikaci-ready")


def test_a_guest_that_is_ready(daemon: Daemon) -> None:
    """It tells its host so, once."""
    process = daemon.answers("")

    assert (0, "") == daemon.script_ends()
    assert TOLD == process.communicate()[0]


def test_a_runner_that_comes_late(daemon: Daemon) -> None:
    """Nothing is told before the runner is where the host looks for it."""
    runner = daemon.guest.path(CONTRACT["runner"])
    late = runner.with_name("late")
    runner.rename(late)
    process = daemon.answers("!404", "")
    script = daemon.guest.popen("-x", daemon.script, program="sh")
    wait_for(script.stderr, b"+ sleep 0.1\n")
    # Whoever asks now is the first to be answered: the script has not asked yet.
    code, said, _ = daemon.guest.call(
        "--silent", "--unix-socket", "/dev/incus/sock", "http://incus/1.0", program="curl"
    )
    late.rename(runner)
    script.communicate()

    assert (0, b"!404", 0) == (code, said, script.returncode)
    assert b"GET /1.0 \n" + TOLD == process.communicate()[0]


def test_a_socket_that_comes_late(daemon: Daemon) -> None:
    """In a VM the socket comes with Incus's agent; the script waits for it."""
    script = daemon.guest.popen("-x", daemon.script, program="sh")
    wait_for(script.stderr, b"+ sleep 0.1\n")
    process = daemon.answers("")
    script.communicate()

    assert 0 == script.returncode
    assert TOLD == process.communicate()[0]


@pytest.mark.parametrize(
    ("without", "code", "says"),
    [
        ("/dev/incus/sock", 0, "nobody to tell: there is no /dev/incus/sock\n"),
        (CONTRACT["runner"], 1, f"not ready: there is no {CONTRACT['runner']}\n"),
    ],
    ids=["socket", "runner"],
)
def test_what_never_comes(daemon: Daemon, without: str, code: int, says: str) -> None:
    """The wait has an end. A guest without a socket is one that its host keeps from the daemon."""
    daemon.answers("")
    daemon.guest.path(without).unlink()
    sleep = daemon.guest.path("/opt/sleep")
    sleep.write_text("#!/bin/sh\n")  # or it would take two minutes
    sleep.chmod(0o755)
    script = daemon.guest.popen(env={"PATH": "/opt:/usr/bin:/bin"}, program=daemon.script)
    stdout, stderr = script.communicate()

    assert (code, says) == (script.returncode, (stdout + stderr).decode())


def test_an_agent_whose_host_is_away(daemon: Daemon) -> None:
    """In a VM the agent answers in its host's place: with an error that is gone a little later."""
    process = daemon.answers("!500", "")

    assert (0, "") == daemon.script_ends()
    assert 2 * TOLD == process.communicate()[0]


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("!403", 0, "nobody to tell: the host takes no announcement\n"),
        ("!400", 1, "the host refused the announcement: HTTP code 400\n"),
    ],
)
def test_a_host_that_takes_no_announcement(
    daemon: Daemon, answer: str, code: int, says: str
) -> None:
    """One that takes none from any guest is no error; any other refusal is."""
    process = daemon.answers(answer)

    assert (code, says) == daemon.script_ends()
    assert TOLD == process.communicate()[0]
