"""The times of a log's lines, on the real Incus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.log_times import RECORD, UNKNOWN, times_path
from tests.integration.command import AT_THE_GATE, SECS, Command, wait_until

pytestmark = pytest.mark.incus


def test_a_silence_is_found_behind_its_line(pikaci: Command) -> None:
    """And the lines before and after it have their times."""
    done = pikaci("run", "--", "echo one; sleep 6; echo two")
    lines = [json.loads(line) for line in pikaci("logs", "--output", "jsonl").stdout.splitlines()]
    silence = json.loads(pikaci("trace", "--json").stdout)["silence"]

    assert 0 == done.returncode
    assert ["one", "two"] == [line["text"] for line in lines[1:]]
    assert all(line["at"] for line in lines)
    assert 2 == silence["line"]
    assert f"silent for {silence['secs']:.1f} s after line 2" in pikaci("trace").stdout
    assert lines[2]["at"][:20] in pikaci("logs", "--timestamps", "--grep", "two").stdout


def test_a_killed_process_s_log_goes_on_with_its_times(pikaci: Command) -> None:
    """Each line has one, and the index says where nobody followed the log."""
    running = pikaci.run_until("running", "run", "--", f"echo one; {AT_THE_GATE}; echo two")
    wait_until(pikaci.log_lines)
    running.kill()
    running.communicate(timeout=SECS)
    pikaci.open_gate()
    resumed = pikaci("resume")
    lines = json.loads(pikaci("logs", "--output", "json").stdout)
    (log,) = pikaci.root.glob("jobs/*/attempt-1/guest.log")

    assert 0 == resumed.returncode
    assert ["one", "two"] == [line["text"] for line in lines[1:]]
    times = [line["at"] for line in lines]
    assert times == sorted(times)
    records = list(RECORD.iter_unpack(times_path(Path(log)).read_bytes()))
    offset = log.read_bytes().index(b"two")
    assert (offset, UNKNOWN) in records[1:-1]
    assert (log.stat().st_size, UNKNOWN) == records[-1]
