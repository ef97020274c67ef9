"""`pikaci shell` in a real pseudo-terminal: in the job's own world, and nothing left behind."""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
import trio

from orchestrator.contract import contract
from orchestrator.journal import open_journal
from states import events as ev
from tests.commands import command_lines
from tests.integration.command import AT_THE_GATE, SECS, Command, printed, wait_until
from tests.integration.shells import at_prompt, kill, open_shell, types
from tests.terminal.screen import Terminal

pytestmark = pytest.mark.incus

JOBS = f"""
schema = 1
[jobs.user]
command = "export LATER=1; echo made > made.txt; echo begun; {AT_THE_GATE}; exit 3"
scratch = true
env = {{ COLOUR = "red  and blue", pairs = "mine", PATH = "/usr/bin:/bin:/own" }}
secrets = {{ TOKEN = {{ env = "MY_TOKEN" }} }}
[jobs.root]
command = "echo begun; {AT_THE_GATE}"
run_as_root = true
[jobs.late]
command = "sleep 600"
timeout_secs = 1
run_as_root = true
keep = "failure"
secrets = {{ TOKEN = {{ env = "MY_TOKEN" }} }}
[jobs.decoy]
command = '''
unshare --pid --fork --mount-proc bash -c "{AT_THE_GATE}; true" {contract().runner} init &
echo begun; wait'''
run_as_root = true
"""
Open = Callable[..., Terminal]


@pytest.fixture
def shell(pikaci: Command) -> Iterator[Open]:
    """Opens `pikaci shell ARGS` in a window of its own."""
    opened: list[Terminal] = []
    pikaci.write(JOBS)
    (pikaci.workspace / "hello.txt").write_text("hello\n")
    pikaci.env["MY_TOKEN"] = "s3cret"

    def begin(*args: str) -> Terminal:
        opened.append(open_shell(pikaci, *args))
        return opened[-1]

    yield begin
    for terminal in opened:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()


def processes(pikaci: Command) -> str:
    """The command lines of all processes of the only guest."""
    (guest,) = pikaci.leases()
    script = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    return printed(guest, "sh", "-c", script).decode()


def shells_on_host(pikaci: Command) -> list[int]:
    """The incus commands of our shells that still run here."""
    (guest,) = pikaci.leases()
    return [
        pid
        for pid, line in command_lines()
        if b"--mode=interactive" in line and guest.encode() in line
    ]


def test_a_shell_beside_a_running_job_has_its_world(pikaci: Command, shell: Open) -> None:
    """User, directory, variables, secrets, scratch and processes; the job ends as without it."""
    job = pikaci.run_until("user: running", "run", "user")
    wait_until(lambda: b"begun" in pikaci.log_lines())
    terminal = shell("user")

    assert ["pikaci"] == types(terminal, "id -un")
    assert ["/workspace/snapshot"] == types(terminal, "pwd")
    assert ["red  and blue|s3cret|mine|"] == types(terminal, 'echo "$COLOUR|$TOKEN|$pairs|$LATER"')
    assert ["/usr/bin:/bin:/own"] == types(terminal, "echo $PATH")
    assert ["hello", "made"] == types(terminal, "cat hello.txt made.txt")
    # The runner's init is process 1 of the job's own processes.
    (first,) = types(terminal, "tr '\\0' ' ' </proc/1/cmdline; echo")
    assert "pikaci-incus-run init" in first
    assert [] == types(terminal, "echo mine > by-hand.txt; : </dev/tty; : >/dev/stderr")
    terminal.press(b"exit 7\n")
    assert 7 == terminal.wait()

    pikaci.open_gate()
    assert 1 == job.wait(SECS)
    # Who entered; the time counts for the job, not for the shell.
    me = pwd.getpwuid(os.getuid()).pw_name
    assert f"pikaci-shell-of-{me} " in pikaci("trace", "user", "--verbose").stdout
    trace = pikaci("trace", "user").stdout
    assert " shell " not in trace, trace


def test_a_shell_beside_a_job_whose_pikaci_was_killed(pikaci: Command, shell: Open) -> None:
    """As root. The command stands ready in the history; the shell ends with the job, which passes."""
    job = pikaci.run_until("root: running", "run", "root")
    wait_until(lambda: b"begun" in pikaci.log_lines())
    job.kill()
    job.communicate(SECS)
    terminal = shell("root")

    assert ["root /root"] == types(terminal, 'echo "$(id -un) $HOME"')
    terminal.press(b"\x1b[A\x1b[A")
    terminal.read_until(lambda now: f"echo begun; {AT_THE_GATE}" in now.shown[-1])
    terminal.press(b"\x15")
    pikaci.open_gate()

    assert 0 != terminal.wait()
    assert 0 == pikaci("resume").returncode
    assert "passed" == json.loads(pikaci("status", "--output", "json").stdout)["outcome"]


def test_a_job_cannot_lead_a_shell_elsewhere(pikaci: Command, shell: Open) -> None:
    """A namespace of its own, with a first process that looks like the runner's, is not entered."""
    job = pikaci.run_until("decoy: running", "run", "decoy")
    wait_until(lambda: b"begun" in pikaci.log_lines())
    terminal = shell("decoy")

    (first,) = types(terminal, "tr '\\0' ' ' </proc/1/cmdline; echo")
    assert first.endswith("pikaci-incus-run init")
    assert " -c " not in first
    # Both are there: each is the first process of a namespace.
    firsts = "grep -ls '^NSpid:.*[[:space:]]1$' /proc/[0-9]*/status | wc -l"
    assert ["2"] == types(terminal, firsts)
    terminal.press(b"exit\n")
    terminal.wait()
    pikaci.open_gate()
    assert 0 == job.wait(SECS)


def test_the_terminal_belongs_to_the_shell(pikaci: Command, shell: Open) -> None:
    """Its size, Ctrl-C and Ctrl-Z arrive in the guest."""
    job = pikaci.run_until("user: running", "run", "user")
    terminal = shell("user")

    assert ["50 150"] == types(terminal, "stty size")
    terminal.resize(120, 40)
    terminal.press(b"until [ \"$(stty size)\" = '40 120' ]; do sleep 0.1; done; echo is-$((1))\n")
    terminal.read_until(lambda now: "is-1" in now.shown)
    terminal.press(b"sh -c 'echo go-$((1)); exec sleep 1000'\n")
    terminal.read_until(lambda now: "go-1" in now.shown)
    terminal.press(b"\x03")
    terminal.read_until(at_prompt)
    assert ["130"] == types(terminal, "echo $?")
    terminal.press(b"sh -c 'echo go-$((2)); exec sleep 2000'\n")
    terminal.read_until(lambda now: "go-2" in now.shown)
    terminal.press(b"\x1a")
    terminal.read_until(at_prompt)
    assert any("Stopped" in line for line in types(terminal, "jobs"))
    terminal.press(b"kill %1; exit; exit\n")
    terminal.wait()

    pikaci.open_gate()
    assert 1 == job.wait(SECS)


def test_a_closed_window_leaves_nothing(pikaci: Command, shell: Open) -> None:
    """Not here and not in the guest; the job goes on."""
    job = pikaci.run_until("user: running", "run", "user")
    terminal = shell("user")
    types(terminal, "true")
    assert "--rcfile" in processes(pikaci)
    assert [] != shells_on_host(pikaci)

    terminal.press(b"sh -c 'echo go-$((1)); exec sleep 3000'\n")
    terminal.read_until(lambda now: "go-1" in now.shown)
    terminal.close()

    terminal.process.wait(SECS)
    wait_until(lambda: "pikaci-shell-of-" in pikaci("trace", "user", "--verbose").stdout)
    wait_until(lambda: [] == shells_on_host(pikaci))
    wait_until(lambda: "--rcfile" not in processes(pikaci))
    wait_until(lambda: "sleep 3000" not in processes(pikaci))
    pikaci.open_gate()
    assert 1 == job.wait(SECS)


def test_a_shell_in_a_kept_guest_has_the_jobs_world(pikaci: Command, shell: Open) -> None:
    """Also after the guest was stopped; `kept` lists it and `release` deletes it."""
    job = pikaci.start("run", "--keep-on-failure", "user")
    wait_until(lambda: b"begun" in pikaci.log_lines())
    pikaci.open_gate()
    job.communicate(SECS)
    (guest,) = pikaci.leases()
    pikaci.incus("stop", "--force", guest)

    terminal = shell("user")
    assert ["pikaci"] == types(terminal, "id -un")
    assert ["red  and blue|s3cret|user"] == types(terminal, 'echo "$COLOUR|$TOKEN|$PIKACI_JOB"')
    assert ["hello", "made"] == types(terminal, "cat hello.txt made.txt")
    assert [] == types(terminal, "echo more > made.txt")
    terminal.press(b"exit 5\n")
    assert 5 == terminal.wait()
    # A second one sees what the first wrote; a secret that is not there is said.
    del pikaci.env["MY_TOKEN"]
    again = shell("user")
    assert ["more"] == types(again, "cat made.txt")
    assert any("has no secrets" in line for line in again.shown)
    again.press(b"exit\n")
    assert 0 == again.wait()
    assert "s3cret" not in processes(pikaci)
    trace = pikaci("trace", "user").stdout
    assert re.search(r"^ +shell\b.* incus exec", trace, re.M), trace

    (kept,) = json.loads(pikaci("kept", "--output", "json").stdout)
    assert ("user", "failed", guest) == (kept["name"], kept["verdict"], kept["instance"])
    assert "until" in pikaci("kept").stdout
    released = pikaci("release", "user")
    assert (0, f"{kept['job']}: its guest is deleted\n") == (released.returncode, released.stdout)
    assert [] == pikaci.leases()
    assert "no guest is kept\n" == pikaci("kept").stdout
    assert 2 == pikaci("release", "user").returncode
    gone = shell("user")
    assert 2 == gone.wait()
    assert "its guest was not kept" in gone.written.decode()
    assert "--keep-on-failure" in gone.written.decode()


def test_a_shell_in_a_kept_guest_whose_time_is_over(pikaci: Command, shell: Open) -> None:
    """Of a job that timed out, as root: who is in it goes with it."""
    assert 3 == pikaci("run", "late").returncode
    terminal = shell("late")
    assert ["root /root s3cret"] == types(terminal, 'echo "$(id -un) $HOME $TOKEN"')

    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        (lease,) = journal.kept_leases()
        over = ev.LeaseKept(
            job=lease.job, instance=lease.instance, deadline=datetime.now(UTC),
            at=datetime.now(UTC), monotonic=0,
        )  # fmt: skip
        trio.run(journal.append, over)
    reaped = pikaci("reap")

    assert 0 == reaped.returncode, reaped.stderr
    assert 0 != terminal.wait()
    assert [] == pikaci.leases()
    assert "no guest is kept\n" == pikaci("kept").stdout


def test_a_kept_guest_that_somebody_deleted(pikaci: Command, shell: Open) -> None:
    """The shell says so, and `release` ends its lease. `rerun` keeps guests as `run` does."""
    pikaci("run", "--", "exit 1")
    assert [] == pikaci.leases()
    pikaci("rerun", "--keep-on-failure")
    (guest,) = pikaci.leases()
    pikaci.incus("delete", "--force", guest)

    terminal = shell()
    assert 2 == terminal.wait()
    assert "was deleted" in terminal.written.decode()
    assert 0 == pikaci("release", "--all").returncode
    assert "no guest is kept\n" == pikaci("kept").stdout


@pytest.mark.parametrize("when", ["--before", "--after"])
def test_a_shell_in_a_new_guest(pikaci: Command, shell: Open, when: str) -> None:
    """Of a job that has ended: its world, its command in the history, and nothing left behind."""
    pikaci.write(JOBS.replace(f"{AT_THE_GATE}; ", "", 1))
    assert 1 == pikaci("run", "user").returncode
    terminal = shell("user", when)

    assert ["pikaci"] == types(terminal, "id -un")
    assert ["red  and blue|s3cret|mine|"] == types(terminal, 'echo "$COLOUR|$TOKEN|$pairs|$LATER"')
    assert ["hello"] == types(terminal, "cat hello.txt")
    assert ["made" if when == "--after" else "no"] == types(
        terminal, "cat made.txt 2>&- || echo no"
    )
    assert any("export LATER=1; echo made" in line for line in types(terminal, "history"))
    exited = "[pikaci] the command exited with 3"
    assert (when == "--after") == any(exited in line for line in terminal.all_lines)
    terminal.press(b"exit 7\n")

    assert 7 == terminal.process.wait(SECS)
    assert [] == pikaci.leases()
    assert "nobody entered" not in pikaci("logs").stdout  # the guest saw it come, and leave
    report = json.loads(pikaci("status", "--output", "json").stdout)
    assert ["user-shell"] == [job["name"] for job in report["jobs"]]


def test_a_shell_in_a_new_guest_is_cancelled_and_killed(pikaci: Command, shell: Open) -> None:
    """It is a job like any other. Of a killed pikaci, the guest itself ends it; the next cleans up."""
    pikaci.write(JOBS.replace(f"{AT_THE_GATE}; ", "", 1))
    assert 1 == pikaci("run", "user").returncode
    cancelled = shell("user", "--before")
    cancelled.read_until(at_prompt)
    (listed,) = (line for line in pikaci("list", "--jobs").stdout.splitlines() if "-shell" in line)
    assert "user-shell" in listed and "running" in listed
    assert 0 == pikaci("cancel", "user-shell").returncode
    assert 0 != cancelled.wait()
    assert [] == pikaci.leases()

    killed = shell("user", "--before")
    types(killed, "sleep 1")  # who was not seen is waited for
    kill(killed)
    assert 0 == pikaci("resume").returncode
    assert [] == pikaci.leases()


def test_a_shell_of_a_job_that_cannot_run_again(pikaci: Command, shell: Open) -> None:
    """It says why, and leaves nothing; both ends of a command are too many."""
    pikaci.write(JOBS.replace(f"{AT_THE_GATE}; ", "", 1))
    assert 1 == pikaci("run", "user").returncode
    wrong = shell("user", "--before", "--after")
    del pikaci.env["MY_TOKEN"]
    missing = shell("user", "--before")

    assert (2, 2) == (wrong.wait(), missing.wait())
    assert any("exclude each other" in line for line in wrong.shown)
    assert any("MY_TOKEN" in line for line in missing.shown)
    assert [] == pikaci.leases()
