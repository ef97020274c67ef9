"""The script that ends a guest at its deadline, with a daemon that answers, or does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from .daemon import Daemon
from .guest import Guest

BEGUN = b"GET /1.0/config/user.pikaci.begun \n"
ASKS = b"GET /1.0/config/user.pikaci.deadline \n"


@pytest.fixture
def daemon(guest: Guest) -> Daemon:
    return Daemon(guest, "pikaci-deadline")


def after(secs: float) -> str:
    """A time as the host writes it."""
    return (datetime.now(UTC) + timedelta(seconds=secs)).isoformat()


def test_the_deadline_ends_the_guest(daemon: Daemon) -> None:
    """It is asked for again before the end; one that has passed already ends the guest at once."""
    process = daemon.answers("!404", after(3), "2020-01-01T00:00:00+00:00")
    daemon.guest.popen(program=daemon.script).communicate()

    daemon.guest.wait_until_off()
    assert BEGUN + 2 * ASKS == process.communicate()[0]


@pytest.mark.parametrize("year", [2020, 2100])
def test_the_clock_that_set_it_is_another(daemon: Daemon, year: int) -> None:
    """The time from its begin to its end counts, not what the guest's own clock says."""
    begun, ends = f"{year}-01-01T00:59:58+01:00", f"{year}-01-01T00:00:01Z"
    process = daemon.answers(begun, ends, ends)
    daemon.guest.popen(program=daemon.script).communicate()

    daemon.guest.wait_until_off()
    assert BEGUN + 2 * ASKS == process.communicate()[0]


def test_a_daemon_that_has_gone_moves_no_deadline(daemon: Daemon) -> None:
    """When nobody answers any more, the deadline that was known ends the guest."""
    process = daemon.answers("!404", after(1))
    daemon.guest.popen(program=daemon.script).communicate()

    daemon.guest.wait_until_off()
    process.communicate()


def test_a_deadline_that_was_taken_away(daemon: Daemon) -> None:
    """Without a deadline, or with one no longer, the guest goes on."""
    process = daemon.answers("!404", "!404", "!404", after(3), "!404")

    assert [0, 0] == [daemon.script_ends()[0], daemon.script_ends()[0]]
    process.communicate()


def test_an_agent_whose_host_is_away(daemon: Daemon) -> None:
    """In a VM the agent answers in its host's place: with an error that means nothing."""
    process = daemon.answers("!500", "!404", "!500", "2020-01-01T00:00:00+00:00")
    daemon.guest.popen(program=daemon.script).communicate()

    daemon.guest.wait_until_off()
    assert 2 * BEGUN + 2 * ASKS == process.communicate()[0]


@pytest.mark.parametrize(
    "answers", [[], ["soon"], ["!404", "soon"]], ids=["nobody", "no begin", "no end"]
)
def test_a_deadline_that_cannot_be_read(daemon: Daemon, answers: list[str]) -> None:
    """The script says so by its exit code: what started it tries again later."""
    process = daemon.answers(*answers)

    assert 1 == daemon.script_ends()[0]
    process.communicate()
