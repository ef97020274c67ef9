"""Deadlines, and that no process of a job outlives it."""

from __future__ import annotations

import pytest

from .guest import QUIET, Guest

FAMILIES = {
    "obedient": "sleep 300",
    "deaf": "trap '' TERM; while :; do sleep 1; done",
    # Sessions of their own, a double fork without the pipe, stopped ones, and ever new ones.
    "stubborn": """
        for i in 1 2 3; do setsid sh -c 'trap "" TERM; sleep 300' & done
        (setsid sh -c 'sleep 300 & trap "" TERM HUP; sleep 300' </dev/null &>/dev/null &)
        setsid sh -c 'kill -STOP $$' & setsid sleep 300 & kill -STOP $!
        f() { trap '' TERM; for i in 1 2 3 4; do sleep 0.2; (f) & done; wait; }; f & kill -STOP $$
    """,
}


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
@pytest.mark.parametrize("family", FAMILIES)
def test_overrun(guest: Guest, family: str, root: bool) -> None:
    """A job past its limit is `timed_out`, and not one process is left when the result is there."""
    ended = guest.run(
        FAMILIES[family], timeout_secs=1, root=root, send={"PIKACI_INCUS_GRACE_SECS": "1"}
    )

    assert ended.result is not None
    expected = ("timed_out", 124, "test command timed out after 1s")
    assert expected == tuple(ended.result[key] for key in ("status", "exit_code", "message"))
    assert 124 == ended.code
    assert set() == guest.processes()


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_term_comes_first(guest: Guest, root: bool) -> None:
    """A job past its limit may clean up within the grace; its own exit code changes nothing."""
    ended = guest.run(
        QUIET + "trap 'sleep 0.3; echo cleaned; exit 0' TERM; echo begun; sleep 300 & wait",
        timeout_secs=1,
        root=root,
    )

    assert ended.result is not None
    assert "timed_out" == ended.result["status"]
    assert b"begun\ncleaned\n" == ended.output


def test_no_grace(guest: Guest) -> None:
    """With a grace of 0 the job gets no TERM."""
    ended = guest.run(
        QUIET + "trap 'echo cleaned' TERM; echo begun; sleep 300 & wait",
        timeout_secs=1,
        send={"PIKACI_INCUS_GRACE_SECS": "0"},
    )

    assert ended.result is not None
    assert "timed_out" == ended.result["status"]
    assert b"begun\n" == ended.output


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
def test_leftovers_of_a_finished_command(guest: Guest, root: bool) -> None:
    """A command that ended in time has its own verdict, whatever it left running; that is ended."""
    ended = guest.run("setsid sh -c 'trap \"\" TERM; sleep 300' & echo done; exit 3", root=root)

    assert ended.result is not None
    assert ("failed", 3) == (ended.result["status"], ended.result["exit_code"])
    assert b"done\n" == ended.output
    assert set() == guest.processes()


def test_leftover_is_asked_before_it_is_killed(guest: Guest) -> None:
    """What a command left running gets a TERM, and its last words are in the log."""
    ended = guest.run(
        "mkfifo /tmp/up;"
        " (trap 'echo bye; exit' TERM; echo >/tmp/up; exec 2>&-; sleep 300 & wait) &"
        " read _ </tmp/up"
    )

    assert b"bye\n" == ended.output
    assert 0 == ended.code


def test_limit_while_leftovers_linger(guest: Guest) -> None:
    """A limit that passes after the command's end is no timeout."""
    ended = guest.run("(trap '' TERM; sleep 300) & sleep 0.5", timeout_secs=1)

    assert ended.result is not None
    assert "passed" == ended.result["status"]
