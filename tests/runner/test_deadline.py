"""The script that ends a guest at its deadline, with a daemon that answers, or does not."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from .guest import RUNNER, Guest
from .test_cancel import wait_for

SCRIPT = "/opt/pikaci-deadline"
# Answers each asker with the next of its arguments, `none` with 404; then it is gone.
DAEMON = """
import http.server, os, socketserver, sys
answers = sys.argv[1:]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.path == "/1.0/config/user.pikaci.deadline"
        answer = answers.pop(0)
        self.send_response(404 if answer == "none" else 200)
        self.end_headers()
        self.wfile.write(answer.encode())
    def address_string(self):
        return "guest"
    def log_message(self, *words):
        pass

with socketserver.UnixStreamServer("/dev/incus/sock", Handler) as server:
    print("up", flush=True)
    while answers:
        server.handle_request()
    os.unlink("/dev/incus/sock")
"""


class Daemon:
    """What stands behind /dev/incus/sock in a guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        guest.path(SCRIPT).write_bytes(RUNNER.with_name("pikaci-deadline").read_bytes())
        guest.path(SCRIPT).chmod(0o755)
        guest.shell("mount -t tmpfs tmpfs /dev; mkdir /dev/incus; mknod -m 666 /dev/null c 1 3")

    def answers(self, *answers: str) -> subprocess.Popen[bytes]:
        process = self.guest.popen("-c", DAEMON, *answers, program="python3")
        wait_for(process.stdout, b"up\n")
        return process

    def asked(self) -> int:
        """The exit code of the script."""
        return self.guest.call(program=SCRIPT)[0]


@pytest.fixture
def daemon(guest: Guest) -> Daemon:
    return Daemon(guest)


def after(secs: float) -> str:
    """A time as the host writes it."""
    return (datetime.now(UTC) + timedelta(seconds=secs)).isoformat()


def test_the_deadline_ends_the_guest(daemon: Daemon) -> None:
    """It is asked for again before the end; one that has passed already ends the guest at once."""
    process = daemon.answers(after(1), "2020-01-01T00:00:00+00:00")
    daemon.guest.popen(program=SCRIPT).communicate()

    daemon.guest.wait_until_off()
    process.communicate()


def test_a_daemon_that_has_gone_moves_no_deadline(daemon: Daemon) -> None:
    """When nobody answers any more, the deadline that was known ends the guest."""
    process = daemon.answers(after(1))
    daemon.guest.popen(program=SCRIPT).communicate()

    daemon.guest.wait_until_off()
    process.communicate()


def test_a_deadline_that_was_taken_away(daemon: Daemon) -> None:
    """Without a deadline, or with one no longer, the guest goes on."""
    process = daemon.answers("none", after(1), "none")

    assert [0, 0] == [daemon.asked(), daemon.asked()]
    process.communicate()


@pytest.mark.parametrize("answers", [[], ["soon"]], ids=["nobody", "no time"])
def test_a_deadline_that_cannot_be_read(daemon: Daemon, answers: list[str]) -> None:
    """The script says so by its exit code: what started it tries again later."""
    process = daemon.answers(*answers)

    assert 1 == daemon.asked()
    process.communicate()
