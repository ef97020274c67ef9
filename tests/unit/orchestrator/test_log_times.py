"""The index of a log's times: what is written, and what is read of whatever lies there."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator.attempt import time_file
from orchestrator.attempt.log_file import HEADROOM_BYTES, LogFile
from orchestrator.attempt.time_file import EVERY_SECS, TimeFile
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.log_times import (
    RECORD,
    LogTimes,
    read_log_times,
    rfc3339,
    times_path,
)
from orchestrator.silence import Silence, longest_silence, timeout_note
from states.lifecycle import State
from states.outcome import Outcome
from states.spec import JobSpec
from tests.unit.orchestrator.rig import open_rig

BEGAN = 1_800_000_000.0
LIMIT = 1000


class Clock:
    """Both of the host's clocks, which stand still until a test moves them."""

    def __init__(self) -> None:
        self.wall, self.steady = BEGAN, 1000.0

    def sleep(self, secs: float) -> None:
        self.wall += secs
        self.steady += secs

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_file, "time", clock)
    return clock


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "guest.log"


def followed(log: Path, *, resume: bool = False) -> LogFile:
    return LogFile(log, max_bytes=LIMIT, resume=resume, times=TimeFile(times_path(log)))


def secs_of(log: Path, offset: int) -> float | None:
    """When the byte came, in seconds after the test's begin."""
    at = read_log_times(log).at(offset)
    return at and round(at.timestamp() - BEGAN, 3)


async def test_each_piece_has_its_time(log: Path, clock: Clock) -> None:
    """And all of a piece the same."""
    async with followed(log) as file:
        await file.write(b"one\ntwo\n")
        clock.sleep(2)
        await file.write(b"three\n")
        await file.pause()

    assert [0, 0, 0, 2, 2] == [secs_of(log, at) for at in (0, 4, 7, 8, 13)]
    assert "2027-01-15T08:00:02.000Z" == rfc3339(read_log_times(log).at(8) or datetime.now(UTC))


async def test_what_comes_fast_shares_a_record(log: Path, clock: Clock) -> None:
    """A guest that prints byte by byte makes no large index."""
    async with followed(log) as file:
        for _ in range(500):
            await file.write(b"x")
            clock.sleep(0.001)
        await file.pause()

    assert times_path(log).stat().st_size <= (0.5 / EVERY_SECS + 3) * RECORD.size


async def test_an_index_has_a_bound(
    log: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes past it has no time, and is no silence."""
    monkeypatch.setattr(time_file, "MAX_RECORDS", 10)
    async with followed(log) as file:
        for _ in range(20):
            await file.write(b"x")
            clock.sleep(7)
        await file.pause()

    assert 10 * RECORD.size == times_path(log).stat().st_size
    assert [0, 7, 56, None, None] == [secs_of(log, at) for at in (0, 1, 8, 9, 19)]
    assert Silence(secs=7, line=1) == longest_silence(log)


async def test_a_log_that_is_followed_anew_says_so(log: Path, clock: Clock) -> None:
    """The time in which nobody did is no silence; what was printed in it came when it came."""
    async with followed(log) as file:
        await file.write(b"one\n")
    clock.sleep(100)
    async with followed(log, resume=True) as file:
        await file.write(b"two\n")
        clock.sleep(6)
        await file.write(b"three\n")
        await file.pause()
        clock.sleep(50)
        await file.write(b"four\n")
        await file.pause()

    assert [0, 100, 106, 156] == [secs_of(log, at) for at in (0, 4, 8, 14)]
    assert Silence(secs=6, line=2) == longest_silence(log)


async def test_a_log_of_before_has_no_times(log: Path, clock: Clock) -> None:
    """What an older pikaci has written of it; what comes now has."""
    log.write_bytes(b"one\n")
    async with followed(log, resume=True) as file:
        await file.write(b"two\n")

    assert [None, None, 0] == [secs_of(log, at) for at in (0, 3, 4)]


async def test_what_was_collected_later_has_no_time(log: Path, clock: Clock) -> None:
    """The log is longer than what was followed of it."""
    async with followed(log) as file:
        await file.write(b"one\n")
        clock.sleep(9)
        await file.pause()
    log.write_bytes(b"one\ntwo\nthree\n")

    assert [0, None, None] == [secs_of(log, at) for at in (0, 4, 8)]


async def test_a_log_begins_anew_with_its_index(log: Path, clock: Clock) -> None:
    """When it is opened so, and when it is told to."""
    async with followed(log) as file:
        await file.write(b"one\n")
    clock.sleep(1)
    async with followed(log) as file:
        await file.write(b"long\n")
        clock.sleep(1)
        await file.restart()
        await file.write(b"two\n")

    assert RECORD.size == times_path(log).stat().st_size
    assert 2 == secs_of(log, 0)


async def test_the_rest_of_a_log_that_is_full_is_no_silence(
    log: Path, clock: Clock, autojump_clock: MockClock
) -> None:
    """The guest goes on, and nothing of it is kept, here or there."""
    async with followed(log) as file:
        await file.write(b"x\n")
        clock.sleep(6)
        await file.write(b"x" * LIMIT)
        for _ in range(100):
            clock.sleep(60)
            await file.write(b"x")
        clock.sleep(60)
        await file.write(b"x" * HEADROOM_BYTES)
        await file.write(b"x")
        await file.pause()

    assert 3 * RECORD.size == times_path(log).stat().st_size
    assert Silence(secs=6, line=1) == longest_silence(log)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_clock_that_is_set_is_no_silence(log: Path, clock: Clock, step: float) -> None:
    """The times are the new clock's from then on."""
    async with followed(log) as file:
        await file.write(b"one\n")
        clock.sleep(10)
        clock.wall += step
        await file.write(b"two\n")
        clock.wall += step
        await file.pause()

    assert [0, 10 + step] == [secs_of(log, at) for at in (0, 4)]
    assert longest_silence(log) is None


async def test_a_link_in_its_place_is_not_written_through(log: Path, tmp_path: Path) -> None:
    """And costs no log: there are no times then."""
    other = tmp_path / "other"
    other.write_bytes(RECORD.pack(0, 1))
    times_path(log).symlink_to(other)
    assert read_log_times(log).at(0) is None

    async with followed(log) as file:
        await file.write(b"one\n")

    assert (b"one\n", RECORD.pack(0, 1)) == (log.read_bytes(), other.read_bytes())
    assert read_log_times(log).at(0) is None


@pytest.mark.parametrize("short", [False, True])
async def test_a_disk_that_takes_no_index_costs_no_log(
    log: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    """An index with a hole would lie: there is none then."""
    real = os.write

    def write(file: int, data: bytes) -> int:
        if len(data) != RECORD.size or log.stat().st_size == 0:
            return real(file, data)
        if short:
            return real(file, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(time_file, "EVERY_SECS", 0)
    monkeypatch.setattr(time_file.os, "write", write)
    async with followed(log) as file:
        await file.write(b"one\n")
        assert times_path(log).exists()
        await file.write(b"two\n")
        await file.write(b"three\n")
        await file.restart()
        await file.write(b"four\n")
        await file.pause()

    assert b"four\n" == log.read_bytes()
    assert not times_path(log).exists()


@pytest.mark.parametrize("kind", ["nothing", "directory", "fifo", "device", "huge"])
def test_what_is_no_index_says_nothing(log: Path, kind: str) -> None:
    """Whatever lies there, without a wait."""
    log.write_bytes(b"one\n")
    path = times_path(log)
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)

    assert read_log_times(log).at(2) is None
    assert longest_silence(log) is None


def test_a_reader_goes_on_where_it_was(log: Path) -> None:
    """Also in the middle of a record, and when the log began anew."""
    path = times_path(log)
    records = [RECORD.pack(at, 1000 + at) for at in range(10)]
    times = LogTimes()
    for cut in (0, 5, 16, 40, 159, 160):
        path.write_bytes(b"".join(records)[:cut])
        times = read_log_times(log, times)
        assert cut // RECORD.size * RECORD.size == times.size
    assert [1000 + at for at in range(10)] == [
        round((times.at(at) or datetime.now(UTC)).timestamp() * 1000) for at in range(10)
    ]

    path.write_bytes(RECORD.pack(0, 7))
    times = read_log_times(log, times)
    assert "1970-01-01T00:00:00.007Z" == rfc3339(times.at(9) or datetime.now(UTC))


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=4))
def test_of_any_bytes_nothing_bad_comes(data: bytes, cuts: list[int]) -> None:
    """Neither an error nor a time that is none, and no silence without a line."""
    times = LogTimes()
    for cut in sorted(cuts):
        times.feed(data[times.size : max(cut, times.size)])
    for at in (0, 1, 100, 1 << 63):
        moment = times.at(at)
        assert moment is None or moment.tzinfo is UTC
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "guest.log"
        log.write_bytes(b"one\ntwo\n")
        times_path(log).write_bytes(data)
        found = longest_silence(log)
        assert found is None or (found.secs >= 5 and 1 <= found.line <= 2)


Steps = list[tuple[float, bytes]]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.01, 0.04, 0.06, 1.0, 4.9, 6.0, 42.0]),
        st.text("ab\n", min_size=1, max_size=5).map(str.encode),
    ),
    min_size=1,
    max_size=20,
)


@given(steps=STEPS, last=st.sampled_from([0.0, 3.0, 5.5, 60.0]), torn=st.integers(0, 400))
def test_whatever_comes_when_is_found_again(steps: Steps, last: float, torn: int) -> None:
    """To 50 ms; and the longest silence is the longest one, behind its line."""
    clock, sent = Clock(), b""
    came: list[float] = []
    expected: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(time_file, "time", clock)
        log = Path(directory) / "guest.log"

        async def main() -> None:
            nonlocal sent
            async with LogFile(
                log, max_bytes=1 << 20, resume=False, times=TimeFile(times_path(log))
            ) as file:
                for pause, data in steps:
                    clock.sleep(pause)
                    if sent:
                        expected.append((pause, sent[:-1].count(b"\n") + 1))
                    await file.write(data)
                    came.extend([clock.wall] * len(data))
                    sent += data
                clock.sleep(last)
                await file.pause()
                expected.append((last, sent[:-1].count(b"\n") + 1))

        trio.run(main)

        times = read_log_times(log)
        for at, moment in enumerate(came):
            found = times.at(at)
            assert found is not None
            assert -0.001 <= moment - found.timestamp() < EVERY_SECS + 0.002
        silence = longest_silence(log)
        longest = max(secs for secs, _ in expected)
        if longest < 4.9:
            assert silence is None
        elif longest > 5:
            assert silence is not None
            assert abs(silence.secs - longest) <= EVERY_SECS + 0.002
            assert silence.line in [line for secs, line in expected if secs == longest]

        # A power cut may tear its end off: what stands before that is as true as it was.
        whole = times_path(log).read_bytes()
        kept = whole[: max(0, len(whole) - torn)]
        times_path(log).write_bytes(kept)
        less = read_log_times(log)
        records = list(RECORD.iter_unpack(kept[: less.size]))
        ends = records[-1][0] if records else 0
        assert [times.at(at) for at in range(ends)] == [less.at(at) for at in range(ends)]


# In a job.


class JobClock(Clock):
    """Both of the host's clocks go as the test's does."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock

    def time(self) -> float:
        return BEGAN + self._clock.current_time()

    def monotonic(self) -> float:
        return self._clock.current_time()


async def hang(command: GuestCommand) -> GuestOutcome:
    """Two lines, and then nothing."""
    command.print(b"one\ntwo\n")
    await trio.sleep_forever()
    raise AssertionError


async def test_a_job_that_timed_out_in_silence_is_told_so(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to its end; of one that did not time out nothing is added."""
    monkeypatch.setattr(time_file, "time", JobClock(autojump_clock))
    async with open_rig(tmp_path, guest_script=hang) as rig:
        job = await rig.live(JobSpec(command="x", timeout_secs=42))

    assert Outcome.TIMED_OUT == job.outcome
    assert "it printed nothing for 42 s after line 3" == timeout_note(job)
    assert "" == timeout_note(msgspec.structs.replace(job, outcome=Outcome.FAILED))
    times_path(Path(job.artifacts or "") / "guest.log").unlink()
    assert "" == timeout_note(job)


async def test_a_job_s_log_has_its_index(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Beside it, and it is no artifact."""
    async with open_rig(tmp_path) as rig:
        job = await rig.live(JobSpec(command="echo one; echo x > /artifacts/x", artifacts=("*",)))

    assert job.artifacts is not None
    directory = Path(job.artifacts)
    log = directory / "guest.log"
    names = {path.name for path in directory.iterdir()}
    assert {"guest.log", "guest.log.times", "result.json", "manifest.json", "artifacts"} == names
    assert ["x"] == [path.name for path in (directory / "artifacts").iterdir()]
    at = read_log_times(log).at(log.stat().st_size - 1)
    assert at is not None and at >= job.phases[0].entered_at


async def test_the_log_of_a_guest_that_dies_has_no_times_past_what_was_followed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """No `.new` file and no second index is left."""
    async with open_rig(tmp_path) as rig:
        job = await rig.live(JobSpec(command="echo one; poweroff"))

    directory = Path(job.artifacts or "")
    assert State.FAILED == job.state or Outcome.FAILED == job.outcome
    assert not [path.name for path in directory.iterdir() if ".new" in path.name]
