"""Whoever reads the output of `pikaci run` may stop: signals and the jobs' ends still work."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forks import ON_THE_FAKE, Forked
from tests.terminal.test_terminal import jobs

SECS = 60
PIPE_BYTES = 4096
PRINTS = "; ".join(["print " + "x" * 900] * 9)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The ends of a pipe that holds a page."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield ends
    for end in ends:
        os.close(end)


def wait_until_stuck(process: Forked) -> None:
    """Until a thread of the process waits for room in a pipe or a terminal."""
    give_up = time.monotonic() + SECS
    tasks = Path(f"/proc/{process.pid}/task")
    while not any(
        path.read_text().endswith(("pipe_write", "wait_woken")) for path in tasks.glob("*/wchan")
    ):
        assert time.monotonic() < give_up, "nothing fills the pipe"
        time.sleep(0.05)


def run(tmp_path: Path, job_file: str, *args: str, stdout: int, stderr: int) -> Forked:
    (tmp_path / "pikaci.toml").write_text(job_file)
    env = {**os.environ, "PIKACI_STATE_ROOT": f"{tmp_path}-root"}
    return Forked(
        ["run", *args], program=ON_THE_FAKE, cwd=tmp_path, env=env, stdout=stdout, stderr=stderr
    )


def code_after(process: Forked, number: signal.Signals) -> int:
    process.send_signal(number)
    try:
        return process.wait(SECS)
    finally:
        process.kill()


@pytest.mark.parametrize("args", [(), ("--output", "jsonl")])
def test_a_signal_stops_a_run_whose_output_nobody_reads(
    tmp_path: Path, pipe: tuple[int, int], args: tuple[str, ...]
) -> None:
    """Also when stderr is the same pipe."""
    file = jobs(**{f"j{number}": f"{PRINTS}; exit 1" for number in range(6)}, last="sleep 1000")
    process = run(tmp_path, file, *args, stdout=pipe[1], stderr=pipe[1])
    wait_until_stuck(process)

    assert 130 == code_after(process, signal.SIGTERM)


def test_a_signal_stops_one_command_whose_output_nobody_reads(
    tmp_path: Path, pipe: tuple[int, int]
) -> None:
    process = run(tmp_path, "", "--", f"{PRINTS}; sleep 1000", stdout=pipe[1], stderr=pipe[1])
    wait_until_stuck(process)

    assert 130 == code_after(process, signal.SIGINT)


def test_a_signal_ends_a_run_that_has_only_to_print(tmp_path: Path) -> None:
    """A terminal that takes nothing holds up the summary; SIGTERM is not held up by it."""
    reading, terminal = pty.openpty()
    file = jobs(**{f"j{number}": f"{PRINTS}; exit 1" for number in range(6)})
    process = run(tmp_path, file, stdout=terminal, stderr=terminal)
    wait_until_stuck(process)
    time.sleep(1)  # by now it has most likely come to the summary

    assert code_after(process, signal.SIGTERM) in (130, -signal.SIGTERM)
    os.close(reading)
    os.close(terminal)
