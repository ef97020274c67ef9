"""The signal table, on the real Incus: whatever ends a process that holds a job, all is clean.

A `run` that is told to end cancels its job. A `serve` that is told to end leaves its jobs to the
next start, as a killed process of either kind does.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import termios
from collections.abc import Callable
from functools import partial

import pytest

from orchestrator.journal import open_journal
from orchestrator.session import locks
from states import events as ev
from tests.commands import command_lines
from tests.forks import Forked
from tests.integration.command import AT_THE_GATE, PIKACI, SECS, Command, wait_until

pytestmark = pytest.mark.incus

TALKS = f"echo one; {AT_THE_GATE}; echo two; exit 3"
COMMANDS = {"obeys": TALKS, "ignores": f"trap '' TERM; {TALKS}"}
Holder = Callable[[Command, str], Forked]


def kill_group(process: Forked) -> None:
    os.killpg(process.pid, signal.SIGKILL)


SIGNALS: dict[str, Callable[[Forked], None]] = {
    "SIGTERM": Forked.terminate,
    "SIGINT": partial(Forked.send_signal, number=signal.SIGINT),
    "SIGHUP": partial(Forked.send_signal, number=signal.SIGHUP),
    "SIGKILL": Forked.kill,
    "SIGKILL-group": kill_group,
}


def run(pikaci: Command, command: str) -> Forked:
    """A `pikaci run` whose command has begun to print."""
    running = pikaci.run_until("running", "run", "--", command)
    wait_until(lambda: pikaci.log_lines())
    return running


def serve(pikaci: Command, command: str) -> Forked:
    """A `pikaci serve` that has taken the job of a dead run over."""
    dead = run(pikaci, command)
    dead.kill()
    dead.communicate(timeout=SECS)
    serving = pikaci.run_until("serving", "serve")
    (name,) = (row["run"] for row in json.loads(pikaci("list", "--output", "json").stdout))
    wait_until(lambda: locks.is_held(pikaci.root / "locks", name))
    return serving


def end(process: Forked, how: str) -> int:
    """Signal it; its exit code."""
    SIGNALS[how](process)
    process.communicate(timeout=SECS)
    return process.returncode


def assert_clean(pikaci: Command) -> None:
    """No unfinished job, no lease, no instance, and no client that still asks for one."""
    with open_journal(pikaci.root / "journal.sqlite3") as journal:
        assert [] == journal.unfinished()
        assert [] == journal.open_leases()
        entries = [entry for row in journal.jobs() for _, entry in journal.entries(row.id)]
    made = {entry.instance.encode() for entry in entries if isinstance(entry, ev.LeaseOpened)}
    assert [] == pikaci.leases()
    wait_until(lambda: not any(name in line for name in made for _, line in command_lines()))


def outcome(pikaci: Command) -> tuple[str, int]:
    report = json.loads(pikaci("status", "--output", "json").stdout)
    return report["outcome"], report["exit_code"]


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_run_that_is_told_to_end_cancels(pikaci: Command, how: str, kind: str) -> None:
    """Exit code 130; what the job had printed is there."""
    code = end(run(pikaci, COMMANDS[kind]), how)

    assert (130, ("cancelled", 130)) == (code, outcome(pikaci))
    assert b"one" == pikaci.log_lines()[0]
    assert b"two" not in pikaci.log_lines()
    assert_clean(pikaci)


@pytest.mark.parametrize("kind", ["obeys", pytest.param("ignores", marks=pytest.mark.every_point)])
@pytest.mark.parametrize(
    ("holder", "how", "code"),
    [
        (run, "SIGKILL", -9),
        (run, "SIGKILL-group", -9),
        (serve, "SIGTERM", 0),
        (serve, "SIGINT", 0),
        (serve, "SIGHUP", 0),
        (serve, "SIGKILL", -9),
        (serve, "SIGKILL-group", -9),
    ],
)
def test_a_job_whose_process_is_gone_goes_on(
    pikaci: Command, holder: Holder, how: str, code: int, kind: str
) -> None:
    """The next start brings it to its own end, with its whole log."""
    ended = end(holder(pikaci, COMMANDS[kind]), how)
    pikaci.open_gate()
    resumed = pikaci("resume")

    assert (code, ("failed", 1)) == (ended, outcome(pikaci)), resumed.stdout + resumed.stderr
    assert [b"one", b"two"] == pikaci.log_lines()
    assert_clean(pikaci)


def test_a_run_whose_terminal_is_closed_cancels(pikaci: Command) -> None:
    """It writes to that terminal no more, and still sees its job to its end."""
    master, slave = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    ends = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    running = subprocess.Popen(
        [PIKACI, "run", "--", TALKS],
        cwd=pikaci.workspace,
        env={**pikaci.env, "TERM": "xterm"},
        start_new_session=True,
        preexec_fn=take_terminal,
        **ends,
    )
    os.close(slave)

    def talked() -> bool:
        while select.select([master], [], [], 0)[0]:
            os.read(master, 65536)
        return b"one" in pikaci.log_lines()

    wait_until(talked)
    # What closes a terminal's window does: to its processes, and to each write that comes.
    os.close(master)

    assert 130 == running.wait(SECS)
    assert ("cancelled", 130) == outcome(pikaci)
    assert_clean(pikaci)


def test_a_run_that_ignores_a_closed_terminal_goes_on(pikaci: Command) -> None:
    """As `nohup` starts it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        running = run(pikaci, TALKS)
    finally:
        signal.signal(signal.SIGHUP, before)
    running.send_signal(signal.SIGHUP)
    pikaci.open_gate()
    running.communicate(timeout=SECS)

    assert 1 == running.returncode
    assert [b"one", b"two"] == pikaci.log_lines()
    assert_clean(pikaci)


@pytest.mark.parametrize(("times", "secs", "last"), [(1, 0.5, b"late"), (2, 4, b"one")])
def test_a_second_interrupt_skips_the_grace_period(
    pikaci: Command, times: int, secs: float, last: bytes
) -> None:
    """With one, a job that is told to end has time for it."""
    running = run(pikaci, f"trap 'sleep {secs}; echo late; exit' TERM; echo one; sleep 600 & wait")
    assert running.stderr is not None
    for _ in range(times):
        running.send_signal(signal.SIGINT)
        if times > 1:
            running.stderr.readline()  # it has heard the first
    running.communicate(timeout=SECS)

    assert 130 == running.returncode
    assert last == pikaci.log_lines()[-1]
    assert_clean(pikaci)


def test_a_stopped_process_is_named_by_cancel(pikaci: Command) -> None:
    """It holds its jobs and cannot answer: that is said, with what to type, and does not hang."""
    running = run(pikaci, TALKS)
    running.send_signal(signal.SIGSTOP)
    asked = pikaci("cancel", "--all")
    running.send_signal(signal.SIGCONT)
    again = pikaci("cancel", "--all", "--now")
    running.communicate(timeout=SECS)

    assert 4 == asked.returncode
    assert f"process {running.pid}, which has the run" in asked.stderr
    assert "does not answer: it is stopped" in asked.stderr
    assert f"`kill -CONT {running.pid}` resumes it" in asked.stderr
    assert (0, 130) == (again.returncode, running.returncode)
    assert_clean(pikaci)
