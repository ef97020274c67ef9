"""`pikaci logs` as a person calls it, on a journal that is made up."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import msgspec
import pytest
import trio

from orchestrator.cli.log_forms import JsonForm, TextForm
from orchestrator.cli.logs import MAX_TAIL
from orchestrator.journal import open_journal
from orchestrator.log_lines import PIECE, Line, Place
from orchestrator.log_times import RECORD, UNKNOWN, times_path
from orchestrator.state_root import StateRoot
from states import events as ev
from tests.forks import Forked
from tests.samples import PATH, sample_life

SECS = 60
LINES = [
    b"[pikaci] incus guest booted at 12:00\n",
    b"one\n",
    b"\x1b[31merr\x1b[1mor\x1b[0m: two\r\n",
    b"\xff three\n",
    b"error: four",
]
LOG = b"".join(LINES)
# In milliseconds; of the fourth line it is not known.
FIRST = "2027-01-15T08:00:00.000Z"
LAST = "2027-01-15T08:00:07.250Z"
INDEX = b"".join(
    [
        RECORD.pack(0, 1_800_000_000_000),
        RECORD.pack(len(b"".join(LINES[:3])), UNKNOWN),
        RECORD.pack(len(b"".join(LINES[:4])), 1_800_000_007_250),
    ]
)
DASH = "-" + " " * 23


class Root:
    """A state root with a job, and its log."""

    def __init__(self, path: Path) -> None:
        self.root = StateRoot(path)
        self.root.make()
        self.attempts = [self.root.attempt_dir("r.1", number) for number in (1, 2)]
        for attempt in self.attempts:
            attempt.mkdir(parents=True)
        self.log = self.attempts[0] / "guest.log"
        self.log.write_bytes(LOG)
        times_path(self.log).write_bytes(INDEX)

    def write(self, *kinds: type[ev.Event], after: int = 0) -> None:
        events = sample_life(*kinds)
        attempts = iter(self.attempts)
        for at, event in enumerate(events):
            if isinstance(event, ev.ArtifactsReset):
                events[at] = msgspec.structs.replace(event, artifacts=str(next(attempts)))

        async def append() -> None:
            with open_journal(self.root.journal) as journal:
                await journal.append(*events[after:])

        trio.run(append)

    def start(self, *words: str) -> Forked:
        env = {**os.environ, "PIKACI_STATE_ROOT": str(self.root.path)}
        return Forked(["logs", *words], env=env, cwd=self.root.path)

    def __call__(self, *words: str) -> bytes:
        """What it prints."""
        out, errors = (process := self.start(*words)).communicate(timeout=SECS)
        assert (0, b"") == (process.returncode, errors)
        return out


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Of a job that has ended."""
    root = Root(tmp_path / "root")
    root.write()
    return root


def test_without_an_option_it_is_the_log_s_bytes(root: Root) -> None:
    """And the last lines are as it has them."""
    assert LOG == root() == root("-f") == root("--tail", "99")
    assert b"".join(LINES[3:]) == root("-n", "2") == root("-f", "--tail", "2")
    assert LINES[4] == root("-n1")


def test_times_stand_before_the_lines(root: Root) -> None:
    """A dash where there is none; the bytes behind them are the log's."""
    times = [FIRST, FIRST, FIRST, DASH, LAST]
    expected = [time.encode() + b" " + line for time, line in zip(times, LINES, strict=True)]

    assert b"".join(expected) == root("--timestamps") == root("--timestamps", "-f")
    assert b"".join(expected[3:]) == root("--timestamps", "-n", "2")
    times_path(root.log).write_bytes(b"what is this, then?")
    assert 5 == root("--timestamps").decode("utf-8", "replace").count(f"{DASH} ")


def test_lines_are_found_behind_their_colours(root: Root) -> None:
    """What is printed has them."""
    assert LINES[2] + LINES[4] == root("--grep", "^error: ")
    assert LINES[2] == root("--grep", "two$")
    assert LINES[3] == root("--grep", "\ufffd th.ee")
    assert LINES[4] == root("--grep", "error", "-n", "1") == root("--grep", "error", "-fn", "1")
    assert LINES[2] + LINES[4] == root("--grep", "(?i)ERROR", "--tail", "2")
    assert f"{LAST} ".encode() + LINES[4] == root("--grep", "four", "--timestamps")
    assert b"" == root("--grep", "five")
    assert LOG == root("--grep", "")


@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_lines_are_told_to_programs(root: Root, output: str) -> None:
    """One document, or one a line; numbers are the log's."""

    def lines(*words: str) -> list[Any]:
        out = root(*words, "--output", output)
        return (
            json.loads(out) if output == "json" else [json.loads(line) for line in out.splitlines()]
        )

    found = lines()
    assert [1, 2, 3, 4, 5] == [line["line"] for line in found]
    assert [FIRST, FIRST, FIRST, None, LAST] == [line["at"] for line in found]
    assert ["one", "\x1b[31merr\x1b[1mor\x1b[0m: two\r", "\ufffd three", "error: four"] == [
        line["text"] for line in found[1:]
    ]
    assert found[3:] == lines("-n", "2")
    assert found[2:5:2] == lines("--grep", "error")
    assert found[4:] == lines("--grep", "error", "-n", "1") == lines("-f", "--tail", "1")
    assert [] == lines("--grep", "five")


REFUSED = {
    "--grep=(": "pikaci: --grep '(' is not a valid regular expression: missing ), unterminated",
    "--grep=a{99999999999}": "pikaci: --grep 'a{99999999999}' is not a valid regular expression: the repet",
    "--tail=0": "0 is not in the range",
    f"--tail={MAX_TAIL + 1}": "is not in the range",
    "--tail=x": "'x' is not a valid integer",
    "--output=xml": "'xml' is not allowed; allowed: human, json, jsonl",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_is_asked_wrongly_is_refused(root: Root, word: str) -> None:
    """In words that say what was wrong."""
    out, errors = (process := root.start(word)).communicate(timeout=SECS)

    assert (2, b"") == (process.returncode, out)
    assert REFUSED[word] in " ".join(errors.decode().split())


def test_a_pattern_with_an_odd_set_is_taken_without_a_word(root: Root) -> None:
    """Python warns of it on stderr."""
    assert LINES[1] == root("--grep", "[[a]*one")


def test_a_job_is_followed_line_by_line(tmp_path: Path) -> None:
    """Each when it is whole; another attempt's log comes behind the first one's."""
    root = Root(tmp_path / "root")
    retried = (*PATH[:3], ev.Retried, *PATH[1:])
    root.write(*PATH[:3])
    second = root.attempts[1] / "guest.log"
    follower = root.start("-f", "-n", "2", "--output", "jsonl", "--grep", "o")
    assert follower.stdout is not None and follower.stderr is not None
    watchdog = Timer(SECS, follower.kill)
    watchdog.start()
    try:
        # The last that match are this one, and `four`, which is no whole line yet.
        assert 3 == json.loads(follower.stdout.readline())["line"]
        with root.log.open("ab") as log:
            log.write(b"teen\nno\nmo")
        told = [json.loads(follower.stdout.readline()) for _ in range(2)]
        second.write_bytes(b"of the second\nmore")
        times_path(second).write_bytes(RECORD.pack(0, 1_800_000_000_001))
        root.write(*retried, after=3)
        told += [json.loads(line) for line in follower.stdout]
        errors = follower.stderr.read()
    finally:
        watchdog.cancel()
        follower.kill()
        follower.communicate(timeout=SECS)

    assert b"" == errors
    assert [
        (5, LAST, "error: fourteen"),
        (6, LAST, "no"),
        (7, LAST, "mo"),
        (1, "2027-01-15T08:00:00.001Z", "of the second"),
        (2, "2027-01-15T08:00:00.001Z", "more"),
    ] == [(line["line"], line["at"], line["text"]) for line in told]


def test_a_log_without_an_end_of_line_costs_no_memory(root: Root) -> None:
    """Its pieces follow each other as they were, behind one time; to a program each is told."""
    root.log.write_bytes(b"a" * (3 * PIECE) + b"b\nnext\n")
    times_path(root.log).unlink()

    assert (
        f"{DASH} ".encode() + root.log.read_bytes()[: 3 * PIECE + 2]
        == root("--timestamps")[: 3 * PIECE + 27]
    )
    assert b"b\nnext\n" == root("--grep", "[bn]")
    found = [json.loads(line) for line in root("--output", "jsonl").splitlines()]
    assert [1, 1, 1, 1, 2] == [line["line"] for line in found]
    assert [PIECE, PIECE, PIECE, 1, 4] == [len(line["text"]) for line in found]


def test_what_breaks_off_within_a_line_is_ended() -> None:
    """When other than its rest comes behind it."""
    form = TextForm(timed=False)
    shown = [
        form.show(Line(place, data), None)
        for place, data in [
            (Place(0, 1), b"begun,"),
            (Place(6, 1, True), b" further,"),
            (Place(90, 1, True), b"later"),
            (Place(0, 1), b"another\n"),
            (Place(8, 2), b"last"),
        ]
    ]

    assert b"begun, further,\nlater\nanother\nlast" == b"".join(shown)


def test_on_a_terminal_nothing_is_printed_over_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a progress bar the last state is shown; a colour ends with its line."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    form = TextForm(timed=True)
    shown = [
        form.show(Line(Place(), data), datetime(2026, 1, 2, tzinfo=UTC)).decode()
        for data in (b"10 %\r50 %\r\x1b[31m100 %\r\n", b"\x1b[2K\x1b[1Gplain")
    ]

    times = "2026-01-02T00:00:00.000Z "
    assert [f"{times}\x1b[31m100 %\x1b[0m\n", f"{times}plain\n"] == shown


def test_no_line_is_a_document_too() -> None:
    """Of JSON."""
    assert [] == json.loads(JsonForm(array=True).end())
    assert b"" == JsonForm(array=False).end()
