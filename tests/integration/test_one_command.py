"""`pikaci run -- COMMAND`, and what its guest leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess

import pytest

from tests.integration.cli_jobs import JOBS
from tests.integration.command import PIKACI, SECS, Command, printed


@pytest.mark.incus
def test_one_command_prints_its_output_and_nothing_else(pikaci: Command) -> None:
    """Byte for byte where there is no terminal; stderr has what went wrong, and nothing else."""
    passed = subprocess.run(
        [PIKACI, "run", "--", r"printf 'a\tb\377\r\n\033[31mred'; echo err >&2"],
        cwd=pikaci.workspace, env=pikaci.env, capture_output=True, timeout=SECS,
    )  # fmt: skip
    failed = pikaci("run", "--", "echo out; exit 7")

    assert (0, b"a\tb\xff\r\n\x1b[31mrederr\n", b"") == (
        passed.returncode, passed.stdout, passed.stderr,
    )  # fmt: skip
    assert (1, "out\n") == (failed.returncode, failed.stdout)
    assert "pikaci: test command exited with 7\n" == failed.stderr


@pytest.mark.incus
def test_where_the_output_goes(pikaci: Command) -> None:
    """To stderr, beside a document on stdout, or nowhere; with names where there are several jobs."""
    pikaci.write("""schema = 1
[jobs.one]
command = "printf 'a\\nb'"
[jobs.two]
command = "echo c; exit 3"
""")
    document = pikaci("run", "--log", "stderr", "--output", "json")
    alone = pikaci("run", "--log", "stderr", "--output", "jsonl", "one")
    nothing = pikaci("run", "--log", "none", "two")
    elsewhere = pikaci("run", "--log", "stderr", "--", "echo out")
    nowhere = pikaci("run", "--log", "none", "--", "echo out; exit 3")

    assert 3 == json.loads(document.stdout)["jobs"][1]["exit_code"]
    assert ["one | a", "one | b", "two | c"] == sorted(document.stderr.splitlines())
    assert "a\nb" == alone.stderr
    assert all(json.loads(line) for line in alone.stdout.splitlines())
    assert "two | c" not in nothing.stdout
    assert ("", "out\n") == (elsewhere.stdout, elsewhere.stderr)
    assert ("", "pikaci: test command exited with 3\n") == (nowhere.stdout, nowhere.stderr)


@pytest.mark.incus
def test_the_commands_own_exit_code(pikaci: Command) -> None:
    """`--exit-code command`: the command's own, or one of a reserved range, for errors too."""
    own = ("run", "--exit-code", "command")
    pikaci.write(JOBS)

    assert 0 == pikaci(*own, "--", "true").returncode
    assert 7 == pikaci(*own, "--", "exit 7").returncode
    assert 240 == pikaci(*own, "slow").returncode
    assert 241 == pikaci(*own, "--", "true", INCUS_SOCKET="/nonexistent").returncode
    assert 242 == pikaci(*own, "no-such-job").returncode
    several = pikaci(*own)
    assert 242 == several.returncode
    assert "needs one job" in several.stderr


@pytest.mark.incus
def test_a_step_of_another_ci(pikaci: Command) -> None:
    """A job as JSON on stdin; its verdict, why, the log's end and the artifacts for the caller."""
    step = [PIKACI, "run", "--spec", "-", "--output", "json", "--exit-code", "command"]
    command = "echo text >/artifacts/result; echo 'main.c:3:1: error: no such header'; exit 7"

    def run(given: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*step, *words], input=given, cwd=pikaci.workspace, env=pikaci.env, text=True,
            capture_output=True, timeout=SECS,
        )  # fmt: skip

    ran = run(json.dumps({"command": command, "artifacts": ["*"]}), "--artifacts-to", "out")
    refused = run('{"command": "true", "cpus": 0}')

    assert 7 == ran.returncode
    (job,) = json.loads(ran.stdout)["jobs"]
    assert ("failed", 7) == (job["verdict"], job["exit_code"])
    assert "main.c:3:1: error: no such header" in job["reason"]
    assert ["main.c:3:1: error: no such header"] == job["log_end"]
    assert "text\n" == (pikaci.workspace / "out" / "result").read_text()
    assert (242, "") == (refused.returncode, refused.stdout)
    assert "pikaci: stdin: cpus is 0; allowed: a whole number from 1 to 1024\n" == refused.stderr


@pytest.mark.incus
def test_one_argument_is_a_shell_line_and_several_are_quoted(pikaci: Command) -> None:
    """What stands behind `--` arrives as it was meant."""
    line = pikaci("run", "--", "echo $((1 + 1)); echo 'a  b'")
    words = pikaci("run", "--", "printf", "%s|", "a  b", "$HOME", "'")

    assert (0, 0) == (line.returncode, words.returncode)
    shown = [
        pikaci("logs", row.split()[0]).stdout.split("\n", 1)[1]
        for row in pikaci("list", "--jobs").stdout.splitlines()
        if row.startswith("  ")
    ]
    assert ["a  b|$HOME|'|", "2\na  b\n"] == shown


@pytest.mark.incus
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_a_command_reaches_the_guest_as_it_was_typed(pikaci: Command, utf8: str) -> None:
    """As UTF-8, in a locale that is ASCII too."""
    done = pikaci(
        "run", "--", "printf", "%s", "grüße漢", LC_ALL="C", PYTHONUTF8=utf8, PYTHONCOERCECLOCALE="0"
    )

    assert (0, "grüße漢") == (done.returncode, done.stdout)


@pytest.mark.incus
def test_a_guest_is_kept_on_failure_with_the_way_into_it(pikaci: Command) -> None:
    """The printed command enters it, as tests/integration/test_shell.py does. Deleting is fine."""
    done = pikaci("run", "--keep-on-failure", "--", "echo left > /artifacts/x; exit 1")

    (kept,) = pikaci.leases()
    assert 1 == done.returncode
    assert re.search(r"open a shell with: pikaci shell [a-z0-9]+\.1$", done.stderr, re.M)
    assert b"left\n" == printed(f"local:{kept}", "cat", "/artifacts/x")
    delete = ["incus", "delete", "--force", "--project", "pikaci", f"local:{kept}"]
    subprocess.run(delete, check=True, timeout=SECS)


@pytest.mark.incus
def test_on_a_terminal_a_command_cannot_steer_it(pikaci: Command) -> None:
    """A title or a cleared screen that the guest prints never gets out."""
    hostile = r"printf '\033]0;owned\007\033[2Jshown\n'; exit 1"
    master, slave = pty.openpty()
    running = subprocess.Popen(
        [PIKACI, "run", "--", hostile],
        cwd=pikaci.workspace,
        env={**pikaci.env, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    try:
        while piece := os.read(master, 65536):
            seen += piece
    except OSError:
        pass  # the terminal's other end is closed
    code = running.wait(SECS)
    os.close(master)

    assert 1 == code
    assert b"shown\r\n" in seen
    assert b"owned" not in seen
    assert b"\x1b[2J" not in seen
