"""`pikaci trace` as a person calls it, on journals that are made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from orchestrator.journal import open_journal
from orchestrator.log_times import RECORD, UNKNOWN, times_path
from orchestrator.session import locks
from orchestrator.state_root import StateRoot
from orchestrator.units import duration
from states import events as ev
from states.outcome import Failure, FailureKind
from tests import forks
from tests.samples import PATH, sample_event, sample_life, sample_note

PIKACI = str(Path(sys.executable).with_name("pikaci"))
STEERING = "red\x1b[31m \x1b]0;title\x07\x1b[2J\x9bname"


@pytest.fixture
def root(tmp_path: Path) -> StateRoot:
    root = StateRoot(tmp_path / "root")
    root.make()
    return root


def write(root: StateRoot, *entries: ev.Entry) -> None:
    async def append() -> None:
        with open_journal(root.journal) as journal:
            await journal.append(*entries)

    trio.run(append)


def pikaci(root: StateRoot, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PIKACI_STATE_ROOT": str(root.path), **env}
    return forks.run(["trace", *words], env=variables, cwd=root.path, text=True)


def failed(directory: Path, *, message: str, name: str = "lint", job: str = "r.1") -> list[Any]:
    """A job that waited, failed, and left a log."""
    events = [
        msgspec.structs.replace(event, job=job) for event in sample_life(*PATH[:5], ev.Failed)
    ]
    events[0] = msgspec.structs.replace(events[0], name=name)
    events[1] = msgspec.structs.replace(events[1], artifacts=str(directory))
    failure = Failure(
        kind=FailureKind.INFRASTRUCTURE, phase="running", message=message, resolution="try again"
    )
    events[-1] = msgspec.structs.replace(events[-1], failure=failure)
    wait = msgspec.structs.replace(
        sample_note(ev.Waited, job=job), at=events[1].at, duration_ms=1000.0, after="r.7"
    )
    call = msgspec.structs.replace(sample_note(job=job), at=events[3].at)
    return [events[0], wait, *events[1:3], call, *events[3:]]


def test_a_job_is_told_with_its_time_and_its_failure(root: StateRoot) -> None:
    """What filled the states, what was waited for, who made way, the log's end; in 80 columns."""
    (root.path / "guest.log").write_text("first\n" * 50 + "last words\n")
    write(root, *failed(root.path, message="the guest was lost\n$ incus exec\nexit code 1"))
    done = pikaci(root, "lint")

    assert (0, "") == (done.returncode, done.stderr)
    for words in (
        "lint  infrastructure fault after 5.0 s",
        "waits for a slot (freed by r.7)",
        "start                0.140 s  incus start",
        "critical path: place 20 % -> start 3 %; pikaci's own work 77 %",
        "waited for: a slot, 1.0 s",
        "in running: the guest was lost",
        "    exit code 1",
        "-> try again",
        "  | last words",
        f"log and artifacts: {root.path}",
    ):
        assert words in done.stdout
    assert 10 == done.stdout.count("\n  | ")
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "|" in line)


def records(*moments: tuple[int, float]) -> bytes:
    """An index: offsets, and seconds before now; 0 for a time that is not known."""
    now = int(time.time() * 1000)
    return b"".join(
        RECORD.pack(offset, now - int(ago * 1000) if ago else UNKNOWN) for offset, ago in moments
    )


def test_a_silence_is_told(root: StateRoot) -> None:
    """The longest one, up to the command's end too; none of less than five seconds."""
    log = root.path / "guest.log"
    log.write_text("one\ntwo\nthree\n")
    write(root, *failed(root.path, message="lost"))

    def silence(*moments: tuple[int, float]) -> Any:
        times_path(log).write_bytes(records(*moments))
        told, document = pikaci(root, "r.1"), json.loads(pikaci(root, "r.1", "--json").stdout)
        found = document["silence"]
        words = (
            f"\n  silent for {duration(found['secs'])} after line {found['line']}\n"
            if found
            else ""
        )
        assert words in told.stdout
        assert bool(words) == ("silent" in told.stdout)
        return found

    assert {"secs": 41.0, "line": 2} == silence((0, 90), (4, 89), (8, 48), (14, 40), (14, 0))
    assert {"secs": 42.0, "line": 3} == silence((0, 45), (14, 42.5), (14, 0.5), (14, 0))
    assert silence((0, 90), (4, 86), (14, 82), (14, 0)) is None
    assert silence((0, 90)) is None, "of a job that has ended: nobody heard the rest"
    assert silence() is None
    log.unlink()
    assert silence((0, 90), (4, 40)) is None


def test_the_silence_of_a_job_that_runs_goes_on(root: StateRoot) -> None:
    """For as long as somebody follows it."""
    log = root.path / "guest.log"
    log.write_text("one\n")
    times_path(log).write_bytes(records((0, 300)))
    events = sample_life(*PATH[:5])
    events[1] = msgspec.structs.replace(events[1], artifacts=str(root.path))
    write(root, *events)

    assert "silent" not in pikaci(root, "r.1").stdout
    with locks.hold_run(root.locks, "r"):
        assert "  silent for 5 min" in pikaci(root, "r.1").stdout


def test_nothing_steers_the_terminal(root: StateRoot) -> None:
    """Neither a name nor a message nor a log, in none of the forms."""
    (root.path / "guest.log").write_text(STEERING)
    write(root, *failed(root.path, message=STEERING, name=STEERING))
    write(root, *failed(root.path, message=STEERING, name=STEERING, job="r.2"))
    trace = root.path / "trace"
    shown = [pikaci(root, *words.split()) for words in ("r.1", "r.1 -v", "r", "diff r.1 r.2")]
    pikaci(root, "export", "r.1", "--output", str(trace))
    shown.append(pikaci(root, "replay", str(trace)))

    for done in shown:
        assert not {"\x1b", "\x07", "\x9b"} & set(done.stdout + done.stderr)
        assert "red" in done.stdout


def test_a_run_is_told_as_bars_with_its_critical_path(root: StateRoot) -> None:
    """And as a document with the same in it."""
    write(root, *failed(root.path, message="lost", name="one"))
    write(root, *failed(root.path, message="lost", name="two", job="r.2"))
    done = pikaci(root)
    document = json.loads(pikaci(root, "--json").stdout)

    assert "run r  2 jobs in 5.0 s" in done.stdout
    assert 1 == done.stdout.count("\n *")
    assert "critical path: a slot after r.7 of another run 20 % ->" in done.stdout
    assert ["one", "two"] == [job["name"] for job in document["jobs"]]
    assert 4.0 == document["path"][-1]["secs"]


def test_of_many_jobs_those_are_shown_that_matter(root: StateRoot) -> None:
    """What failed is among them; `--verbose` shows all."""
    for number in range(60):
        life = sample_life() if number else sample_life(ev.Submitted, ev.Failed)
        events = [msgspec.structs.replace(event, job=f"r.{number + 1}") for event in life]
        events[0] = msgspec.structs.replace(events[0], name=f"job-{number}")
        write(root, *events)
    some, every = pikaci(root), pikaci(root, "-v")

    assert "job-0   infrastructure fault" in some.stdout
    assert "and 20 more: --verbose shows them" in some.stdout
    assert 60 == sum("job-" in line and "|" in line for line in every.stdout.splitlines())


def test_a_job_of_a_dead_process_says_who_goes_on_with_it(root: StateRoot) -> None:
    """It waits for a process, whatever its state is."""
    write(root, *sample_life(*PATH[:5]))
    done = pikaci(root)

    assert "lint  running for" in done.stdout
    assert "(goes on)" in done.stdout
    assert "no process runs it: `pikaci resume` resumes it" in done.stdout


def test_status_of_a_dead_process_says_what_to_type(root: StateRoot) -> None:
    """A job that says `running` for ever would not be true."""
    write(root, *sample_life(*PATH[:5]))
    argv = [PIKACI, "status", "--state-root", str(root.path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    with locks.hold_run(root.locks, "r"):
        held = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert "the process that ran it is gone\n-> pikaci resume --state-root " in done.stdout
    assert "gone" not in held.stdout


def test_a_job_is_a_document_too(root: StateRoot) -> None:
    """Its path adds up to its time."""
    write(root, *failed(root.path, message="lost"))
    document = json.loads(pikaci(root, "lint", "--json").stdout)

    assert ("infrastructure", 5.0) == (document["verdict"], document["secs"])
    assert 5.0 == pytest.approx(sum(step["secs"] for step in document["path"]))
    assert ["place"] == [share["name"] for share in document["waited"]]


def test_what_cannot_be_compared_is_said(root: StateRoot, tmp_path: Path) -> None:
    """With exit code 2: a difference would be 1."""
    write(root, *sample_life())
    broken, two = tmp_path / "broken", tmp_path / "two"
    broken.write_text("nonsense\n")
    two.write_bytes(2 * pikaci(root, "export", "r.1").stdout.encode())
    done = [
        pikaci(root, "diff", "r.1", str(other))
        for other in (broken, two, tmp_path, "nosuch", "r.1")
    ]

    assert [2, 2, 2, 2, 0] == [one.returncode for one in done]
    for one, words in zip(
        done,
        ("this is not a trace", "has 2 traces", "Is a directory", "no job or run"),
        strict=False,
    ):
        assert words in one.stderr
        assert "\n  -> " in one.stderr


def test_differences_are_said_by_how_much(root: StateRoot) -> None:
    """In seconds, and in times."""
    slow = [
        msgspec.structs.replace(event, job="s.1", at=event.at.replace(second=event.at.second * 2))
        for event in sample_life()
    ]
    write(root, *sample_life())
    write(root, msgspec.structs.replace(slow[0], run="s"), *slow[1:])
    done = pikaci(root, "diff", "r.1", "s.1")

    assert 1 == done.returncode
    assert "same path, same outcome" in done.stdout
    assert "running                  1.000 s      2.000 s     +1.000 s  2.0x slower" in (
        done.stdout
    )


def test_replay_tells_of_every_trace_in_a_file(root: StateRoot, tmp_path: Path) -> None:
    """One that is wrong is named by its line, and the next is replayed all the same."""
    write(root, *sample_life(*PATH[:3]))
    whole = pikaci(root, "export", "r.1").stdout
    file = tmp_path / "traces"
    file.write_text("".join(whole.splitlines(keepends=True)[:2]) + whole)
    done = pikaci(root, "replay", str(file))

    assert 1 == done.returncode
    assert "the header promises 3 lines, but 1 follow: some are missing" in done.stderr
    assert "as recorded: submitted -> artifacts_reset -> devices_configured: not ended" in (
        done.stdout
    )
    assert "the trace was exported before its job had ended" in done.stdout


def test_a_warm_guest_is_told(root: StateRoot) -> None:
    """With what its create and its boot would have cost the job."""
    life = sample_life()
    life[2] = msgspec.structs.replace(life[2], warm_ms=812.0)
    write(root, *life)

    said = "in a warm guest (its create and boot took 812 ms)"
    assert said in pikaci(root, "r.1").stdout
    assert f"devices_configured: {said}" in pikaci(root, "r.1", "--verbose").stdout
    (story,) = [json.loads(pikaci(root, "r.1", "--json").stdout)]
    assert 0.812 == story["warm_secs"]


def test_a_note_of_every_kind_is_told(root: StateRoot) -> None:
    """`--verbose` leaves nothing out."""
    notes = [sample_note(kind) for kind in ev.WrittenNote.__args__]
    write(root, sample_event(ev.Submitted, 1), *notes)
    done = pikaci(root, "r.1", "--verbose")

    assert 0 == done.returncode
    assert 1 + 1 + len(notes) == len(done.stdout.splitlines())
    assert "waited for: place (freed by r.2)  [200 ms]" in done.stdout
