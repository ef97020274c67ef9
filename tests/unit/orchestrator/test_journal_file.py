"""The journal's file under fire: made by many, torn, damaged."""

import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.host.doctor import _journal
from orchestrator.journal import Journal, JournalError, open_journal
from orchestrator.journal import file as journal_file
from orchestrator.state_root import StateRoot
from states.lifecycle import State
from tests.samples import sample_life
from tests.unit.orchestrator.journal_files import read_all, wal


def test_processes_that_make_a_journal_at_once_make_one(tmp_path: Path) -> None:
    """The first runs of a new state root may begin together."""
    script = (
        "import sys, pathlib\n"
        "from orchestrator.journal import open_journal\n"
        "print('ready', flush=True)\n"
        "for path in sys.stdin:\n"
        "    with open_journal(pathlib.Path(path.strip())) as journal:\n"
        "        print(journal.owner, flush=True)\n"
    )
    command = [sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout and process.stdin
            process.stdout.readline()
        paths = "".join(f"{tmp_path / str(number)}\n" for number in range(30))
        for process in processes:
            process.stdin.write(paths)
            process.stdin.close()
        owners = [process.stdout.read().splitlines() for process in processes]

    assert 30 == len(set(owners[0]))
    assert 4 * [owners[0]] == owners


def test_a_torn_write_ahead_log_loses_whole_appends_only(killed: Path) -> None:
    """Wherever the log was cut, what is left is a prefix of the appends, and none is half there."""
    whole, log = killed.read_bytes(), wal(killed).read_bytes()
    seen = []
    for cut in range(len(log), -1, -1009):
        killed.write_bytes(whole)
        wal(killed).write_bytes(log[:cut])
        with open_journal(killed) as journal:
            jobs = read_all(journal)
        assert ["r.1", "r.2", "r.3"][: len(jobs)] == list(jobs)
        assert set(jobs.values()) <= {State.RESULT_COLLECTED}
        seen.append(len(jobs))

    assert seen == sorted(seen, reverse=True)
    assert {0, 1, 2, 3} == set(seen)


@pytest.mark.parametrize("filler", [b"\0", b"\xff"])
def test_a_log_that_ends_in_rubbish_loses_whole_appends_only(killed: Path, filler: bytes) -> None:
    """A disk that had made room, and not written yet, is like one that was cut."""
    whole, log = killed.read_bytes(), wal(killed).read_bytes()
    for cut in range(0, len(log), 4001):
        killed.write_bytes(whole)
        wal(killed).write_bytes(log[:cut] + filler * (len(log) - cut))
        with open_journal(killed) as journal:
            jobs = read_all(journal)
        assert ["r.1", "r.2", "r.3"][: len(jobs)] == list(jobs)
        assert set(jobs.values()) <= {State.RESULT_COLLECTED}


def test_a_checkpoint_that_was_cut_short_loses_nothing(killed: Path) -> None:
    """The log is whole while SQLite moves it into the file, however far that came."""
    old, log = killed.read_bytes(), wal(killed).read_bytes()
    with open_journal(killed) as journal:
        jobs = read_all(journal)
    new = killed.read_bytes()

    assert ["r.1", "r.2", "r.3"] == list(jobs)
    for cut in range(0, len(new), 2503):
        killed.write_bytes(new[:cut] + old[cut:])
        wal(killed).write_bytes(log)
        with open_journal(killed) as journal:
            assert jobs == read_all(journal)


async def append_a_job(journal: Journal) -> None:
    await journal.append(*(msgspec.structs.replace(event, job="q.1") for event in sample_life()))


@settings(max_examples=60)
@given(data=st.data())
def test_damage_is_a_clear_error_or_harmless(
    written: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Whatever bytes are wrong, and however many: no other error than a journal's."""
    path = tmp_path / "damaged" / "journal.sqlite3"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    content = bytearray(written.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        wrong = data.draw(st.binary(min_size=1, max_size=64))
        content[start : start + len(wrong)] = wrong
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])

    row = _journal(StateRoot(path.parent))
    found: JournalError | None = None
    try:
        with open_journal(path) as journal:
            read_all(journal)
            trio.run(append_a_job, journal)
    except JournalError as error:
        found = error

    assert row.state == "ok" or row.remedy
    assert found is None or (str(path) in found.brief and found.resolution)


@pytest.mark.parametrize("point", ["migrate", "rename"])
def test_who_dies_while_a_journal_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The next start makes it; half of one is never there."""
    path = tmp_path / "journal.sqlite3"

    def die(*words: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if point == "migrate":
            patch.setattr(journal_file, "migrate", die)
        else:
            patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt), open_journal(path):
            pass
    there = path.exists()
    with open_journal(path) as journal:
        owner = journal.owner

    assert not there
    assert owner
    assert [] == list(tmp_path.glob("*.new*"))
