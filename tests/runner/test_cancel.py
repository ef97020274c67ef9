"""Cancelling, and losing the processes around a job."""

from __future__ import annotations

import os
import signal
import subprocess

from .guest import CONTRACT, DEADLINE_SECS, QUIET, Guest, records, variables, wait_for

DEAF = QUIET + "trap 'echo term' TERM; echo begun; while :; do sleep 300 & wait || :; done"


def test_cancel(guest: Guest) -> None:
    """A cancelled job gets a TERM, may clean up, and is reported as cancelled."""
    job = guest.start(QUIET + "trap 'echo cleaned; exit 0' TERM; echo begun; sleep 300 & wait")
    wait_for(job.stdout, b"begun\n")
    code, _, _ = guest.call("cancel")

    assert 0 == code
    assert guest.path(CONTRACT["result"]).exists()
    ended = guest.ended(job)
    assert ended.result is not None
    expected = ("cancelled", 130, "test command was cancelled")
    assert expected == tuple(ended.result[key] for key in ("status", "exit_code", "message"))
    assert 130 == ended.code
    assert set() == guest.processes()
    assert b"begun\ncleaned\n" == ended.output


def test_cancel_of_a_parent_and_its_children(guest: Guest) -> None:
    """Parents get the signal first: a shell that ends with its children may clean up before."""
    children = "for _ in {1..100}; do sleep 300 & done; echo begun; wait -n"
    job = guest.start(QUIET + f"trap 'echo cleaned; exit 0' TERM; {children}")
    wait_for(job.stdout, b"begun\n")
    guest.call("cancel")

    assert b"begun\ncleaned\n" == guest.ended(job).output


def test_cancel_of_a_deaf_job(guest: Guest) -> None:
    """A job that ignores TERM is killed after the grace; asking again neither hurts nor delays."""
    job = guest.start(DEAF, send={"PIKACI_INCUS_GRACE_SECS": "1"})
    wait_for(job.stdout, b"begun\n")
    first = guest.popen("cancel")
    second = guest.popen("cancel")

    assert 0 == first.wait(DEADLINE_SECS)
    assert 0 == second.wait(DEADLINE_SECS)
    ended = guest.ended(job)
    assert ended.result is not None
    assert "cancelled" == ended.result["status"]
    assert b"begun\nterm\n" == ended.output
    assert 0 == guest.call("cancel")[0]


def test_cancel_now(guest: Guest) -> None:
    """`cancel now` does not wait for the grace, also when a cancel is under way."""
    job = guest.start(DEAF, send={"PIKACI_INCUS_GRACE_SECS": "9999"})
    wait_for(job.stdout, b"begun\n")
    patient = guest.popen("cancel")
    wait_for(job.stdout, b"term\n")

    assert 0 == guest.call("cancel", "now")[0]
    assert 0 == patient.wait(DEADLINE_SECS)
    ended = guest.ended(job)
    assert ended.result is not None
    assert "cancelled" == ended.result["status"]


def test_cancel_before_the_command(guest: Guest) -> None:
    """A cancel that comes while the job is being set up is not lost."""
    job = guest.popen(env=variables("sleep 300", 20, root=False))
    wait_for(job.stdout, b"\n")
    assert_cancelled_with_its_nonce(guest, job, guest.popen("cancel"))


def test_cancel_before_the_nonce(guest: Guest) -> None:
    """A cancel that comes before all of stdin is not lost either."""
    needs_nonce = {CONTRACT["variables"]["needs_nonce"]: "1"}
    job = guest.popen(env=variables("sleep 300", 20, root=False) | needs_nonce)
    while not guest.pids_of("supervise"):
        assert job.poll() is None
    cancel = guest.popen("cancel")
    while not guest.pids_of("cancel"):
        assert cancel.poll() is None
    assert_cancelled_with_its_nonce(guest, job, cancel)


def assert_cancelled_with_its_nonce(
    guest: Guest, job: subprocess.Popen[bytes], cancel: subprocess.Popen[bytes]
) -> None:
    """When the rest of its stdin has come."""
    assert job.stdin is not None
    job.stdin.write(records({"PIKACI_INCUS_NONCE": "n0nce"}))
    job.stdin.close()
    job.stdin = None

    assert 0 == cancel.wait(DEADLINE_SECS)
    ended = guest.ended(job)
    assert ended.result is not None
    assert ("cancelled", "n0nce") == (ended.result["status"], ended.result["nonce"])


def test_cancel_without_a_job(guest: Guest) -> None:
    """There is nothing to cancel before a start, and the runner says so."""
    code, _, stderr = guest.call("cancel")

    assert 125 == code
    assert b"no job was started" in stderr


def test_lost_client(guest: Guest) -> None:
    """A job outlives the exec's client; whoever follows from its last byte has every byte once."""
    job = guest.start("for i in {1..50}; do echo line $i; sleep 0.01; done; exit 9")
    got = wait_for(job.stdout, b"line 10\n")
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate(timeout=DEADLINE_SECS)
    offset = len(got)
    code, rest, _ = guest.call("follow", str(offset))

    assert 9 == code
    assert guest.path(CONTRACT["log"]).read_bytes() == got + rest


def test_follow_after_the_end(guest: Guest) -> None:
    """The log can be followed from any offset up to its length, also when the job is over."""
    ended = guest.run("echo hello; exit 9")

    assert (9, b"hello\n", b"") == guest.call("follow", str(len(ended.log) - 6))
    assert (9, b"", b"") == guest.call("follow", str(len(ended.log)))
    assert (9, b"hello\n", b"") == guest.call("follow", f"0{len(ended.log) - 6}")
    assert 125 == guest.call("follow", str(len(ended.log) + 1))[0]
    assert 125 == guest.call("follow", "-1")[0]
    assert 125 == guest.call("follow", "")[0]


def test_start_again_joins(guest: Guest) -> None:
    """A second start runs nothing: it shows the first one's log, and exits with its code."""
    command = "echo ran >>/artifacts/count; sleep 0.5; exit 4"
    first, second = guest.start(command), guest.start(command)
    ended = guest.ended(first), guest.ended(second)
    again = guest.run("exit 0")

    assert [4, 4, 4] == [one.code for one in (*ended, again)]
    assert ended[0].stdout == ended[1].stdout == again.stdout == again.log
    assert "ran\n" == guest.path("/artifacts/count").read_text()


def test_lost_supervisor(guest: Guest) -> None:
    """When the supervisor is killed the job dies too: code 125, no result, never a verdict."""
    job = guest.start("echo begun; sleep 300")
    wait_for(job.stdout, b"begun\n")
    supervisor = guest.pids_of("supervise")
    guest.shell(f"kill -KILL {' '.join(map(str, supervisor))}")
    ended = guest.ended(job)

    assert 125 == ended.code
    assert ended.result is None
    assert b"the supervisor died" in ended.stderr
    assert set() == guest.left_in_the_end()
