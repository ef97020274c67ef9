"""How a command ends, and what the runner says of it."""

from __future__ import annotations

from datetime import datetime

import pytest

from .guest import CONTRACT, Guest

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
