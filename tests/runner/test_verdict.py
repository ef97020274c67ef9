"""How a command ends, and what the runner says of it."""

from __future__ import annotations

import subprocess
from datetime import datetime

import pytest

from .guest import CONTRACT, Guest, records, variables

EXITS = [
    ("true", 0),
    ("false", 1),
    ("exit 7", 7),
    ("exit 124", 124),
    ("exit 125", 125),
    ("exit 126", 126),
    ("exit 137", 137),
    ("exit 143", 143),
    ("exit 255", 255),
    ("no-such-program", 127),
    ("/etc/passwd", 126),
    ("kill -TERM $$", 143),
    ("kill -KILL $$", 137),
    ("kill -INT $$", 130),
    ("kill 0", 143),
    ("kill -KILL -1 || :; exit 3", 3),
    ("kill -KILL 1 || :; exit 5", 5),
    ("false | true", 1),
    ("false; true", 1),
]


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
@pytest.mark.parametrize(("command", "code"), EXITS)
def test_code_of_the_command(guest: Guest, command: str, code: int, root: bool) -> None:
    """The command's own code is the exec's and the result's; only 0 is a pass."""
    ended = guest.run(command, root=root)

    assert ended.result is not None
    assert (code, code) == (ended.code, ended.result["exit_code"])
    assert ("passed" if code == 0 else "failed") == ended.result["status"]


def test_words_of_a_pass(guest: Guest) -> None:
    """The whole result of a job that passed."""
    ended = guest.run("printf hello")

    assert ended.result is not None
    started = datetime.fromisoformat(ended.result.pop("started_at"))
    finished = datetime.fromisoformat(ended.result.pop("finished_at"))
    ended.result.pop("usage", None)  # test_meter.py has it
    expected = {
        "schema": 1,
        "contract": CONTRACT["version"],
        "nonce": "n0nce",
        "status": "passed",
        "exit_code": 0,
        "message": "test passed",
        "log_bytes": len(ended.log),
        "log_complete": True,
    }
    assert expected == ended.result
    assert started <= finished
    assert started.utcoffset() is not None


def test_words_of_a_failure(guest: Guest) -> None:
    """The message of a failure names the code."""
    ended = guest.run("exit 7")

    assert ended.result is not None
    assert "test command exited with 7" == ended.result["message"]


def test_log_of_a_job(guest: Guest) -> None:
    """The log opens with the boot line, then has the output; the exec shows the same bytes."""
    ended = guest.run("echo out; echo err >&2; echo dev >/dev/stderr")

    first, _, rest = ended.log.partition(b"\n")
    words, _, moment = first.decode().rpartition(" ")
    assert "[pikaci] incus guest booted at" == words
    assert datetime.fromisoformat(moment).utcoffset() is not None
    assert b"out\nerr\ndev\n" == rest
    assert ended.log == ended.stdout


def start_by(guest: Guest, runuser: str) -> subprocess.Popen[bytes]:
    """Start a job of `pikaci` in a guest whose runuser is this script."""
    program = guest.mkdir("/opt/broken") / "runuser"
    program.write_text(f"#!/bin/sh\n{runuser}\n")
    program.chmod(0o755)
    env = variables("echo ran >/artifacts/ran", 20, root=False)
    process = guest.popen(env={"PATH": "/opt/broken:/usr/sbin:/usr/bin:/sbin:/bin", **env})
    assert process.stdin is not None
    process.stdin.write(records({"A": "1", "PIKACI_INCUS_NONCE": "n0nce"}))
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_that_was_never_started_has_neither_failed_nor_passed(
    guest: Guest, code: int
) -> None:
    """Whatever stood in the way, a guest without free processes or without its user: an error."""
    ended = guest.ended(start_by(guest, f"echo no process for you; exit {code}"))

    assert ended.result is not None
    expected = ("error", 125, "the command could not be started (the log says why)")
    assert expected == tuple(ended.result[key] for key in ("status", "exit_code", "message"))
    assert (125, b"no process for you\n") == (ended.code, ended.output.partition(b"[")[0])
    assert not guest.path("/artifacts/ran").exists()


def test_a_command_that_was_cancelled_before_it_was_started_is_cancelled(guest: Guest) -> None:
    """What was asked for is the verdict, not what could not be done any more."""
    process = start_by(guest, "echo not yet; exec sleep 30")
    assert process.stdout is not None
    while b"not yet" not in process.stdout.readline():
        pass
    assert 0 == guest.call("cancel", "now")[0]
    ended = guest.ended(process)

    assert ended.result is not None
    assert ("cancelled", 130) == (ended.result["status"], ended.code)
    assert not guest.path("/artifacts/ran").exists()
