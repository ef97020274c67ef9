"""The journal's file under fire: torn, damaged, too new, too old, not to be written."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Union

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.host.doctor import _journal
from orchestrator.journal import Journal, JournalError, open_journal
from orchestrator.journal import file as journal_file
from orchestrator.journal.file import connect_to_read
from orchestrator.journal.migrations import SCHEMA_VERSION
from orchestrator.journal.reader import JournalReader
from orchestrator.session.gc import Bounds, collect_garbage
from orchestrator.state_root import StateRoot
from states import events as ev
from states import recorded, spec, trace
from states.errors import SpecError
from states.lifecycle import State
from states.outcome import Verdict
from states.spec import JobSpec
from tests.samples import sample_life

DATA = Path(__file__).parent / "data"
OLDER = range(1, SCHEMA_VERSION)
# Root may write anywhere, but for what it is not capable of.
COMMAND = "from orchestrator.cli import main; main()"
AS_ANYONE = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []


def contents(path: Path) -> dict[str, bytes]:
    """The journal and its write-ahead log, as bytes."""
    return {each.name: each.read_bytes() for each in (path, wal(path)) if each.exists()}


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def read_all(journal: Journal) -> dict[str, State]:
    """Everything that there is to be read."""
    journal.open_leases()
    assert journal.owner and journal.key
    return {row.id: journal.job(row.id).state for row in journal.jobs()}


def write(path: Path, *, jobs: int, copy_to: Path | None = None) -> None:
    """Lives of jobs, one append a job; a copy is made while the journal is open."""

    async def append() -> None:
        with open_journal(path) as journal:
            for number in range(1, jobs + 1):
                life = sample_life()
                await journal.append(
                    *(msgspec.structs.replace(event, job=f"r.{number}") for event in life)
                )
            for file in (path, wal(path)) if copy_to else ():
                shutil.copy(file, copy_to)

    trio.run(append)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A journal as a killed process leaves it: three jobs, all still in the write-ahead log."""
    path, left = tmp_path / "journal.sqlite3", tmp_path / "left"
    left.mkdir()
    write(path, jobs=3, copy_to=left)
    return left / path.name


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


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A journal that was closed, with ten jobs."""
    path = tmp_path / "journal.sqlite3"
    write(path, jobs=10)
    return path


def sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("only_reading", [True, False])
def test_a_journal_of_a_newer_pikaci_is_left_alone(written: Path, only_reading: bool) -> None:
    """A newer version is refused with both versions named, and nothing is written."""
    sql(written, "PRAGMA journal_mode = DELETE")
    sql(written, "PRAGMA user_version = 99")
    before = contents(written)

    versions = f"version 99.*version {SCHEMA_VERSION}"
    with (
        pytest.raises(JournalError, match=versions),
        open_journal(written, only_reading=only_reading),
    ):
        pass

    assert before == contents(written)


def test_a_newer_journal_of_a_killed_process_is_left_alone(killed: Path) -> None:
    """The version counts that is in the write-ahead log; neither file changes."""
    kill = (
        f"c.execute('PRAGMA user_version = 99'); import os; os.kill({os.getpid()}, 0); os._exit(0)"
    )
    script = f"import sqlite3; c = sqlite3.connect({str(killed)!r}); {kill}"
    subprocess.run([sys.executable, "-c", script], check=True)
    before = contents(killed)

    with pytest.raises(JournalError, match="version 99"), open_journal(killed):
        pass

    assert before == contents(killed)
    assert 2 == len(before)


@pytest.mark.parametrize("version", [0, -1])
def test_another_s_database_is_left_alone(tmp_path: Path, version: int) -> None:
    """What has tables that are not ours is no journal, and gets none of ours."""
    path = tmp_path / "journal.sqlite3"
    sql(path, "CREATE TABLE theirs (x)")
    sql(path, f"PRAGMA user_version = {version}")
    before = contents(path)

    with pytest.raises(JournalError, match="not a pikaci journal"), open_journal(path):
        pass

    assert before == contents(path)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    """Damage is one clear error that names the file; the bytes stay for who can save them."""
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(b"not a database" * 100)

    with pytest.raises(JournalError, match=f"{path}.*damaged") as caught, open_journal(path):
        pass

    assert "pikaci doctor" in caught.value.resolution
    assert path.read_bytes() == b"not a database" * 100


ODD = {
    "no bytes": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "its first byte": lambda path: path.write_bytes(path.read_bytes()[:1]),
    "half a header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "a header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "half a page": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    "an empty database": lambda path: (path.unlink(), sql(path, "VACUUM")),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a log alone": lambda path: path.rename(wal(path)),
}


@pytest.mark.parametrize("make_odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("only_reading", [True, False])
def test_what_is_cut_short_or_odd_is_not_taken_for_a_new_journal(
    written: Path, make_odd: Callable[[Path], object], only_reading: bool
) -> None:
    """A new one is made only where there is none; what is there stays as it is."""
    make_odd(written)
    before = sorted(path.name for path in written.parent.iterdir())
    bytes_before = contents(written) if written.is_file() else {}

    with (
        pytest.raises(JournalError, match=str(written)) as caught,
        open_journal(written, only_reading=only_reading),
    ):
        pass

    assert caught.value.resolution
    assert before == sorted(path.name for path in written.parent.iterdir())
    assert bytes_before == (contents(written) if written.is_file() else {})


@pytest.mark.parametrize("make_odd", ODD.values(), ids=ODD)
def test_doctor_says_that_it_is_odd(written: Path, make_odd: Callable[[Path], object]) -> None:
    """And what to do; a link to nowhere, and a log alone, are no journal yet."""
    make_odd(written)
    row = _journal(StateRoot(written.parent))

    assert (row.state != "ok" and row.remedy) or not written.exists()


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


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A state root in which nothing can be written, but by root."""
    root = tmp_path / "root"
    root.mkdir()
    yield root
    root.chmod(0o700)


def pikaci(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process that may not write what its files' modes forbid."""
    command = [*AS_ANYONE, sys.executable, "-c", COMMAND, *words]
    where = {**os.environ, "PIKACI_STATE_ROOT": str(root)}
    return subprocess.run(command, env=where, cwd=root, capture_output=True, text=True)


def close_to_writers(root: Path) -> None:
    for file in root.iterdir():
        file.chmod(0o400)
    root.chmod(0o500)


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_what_cannot_be_written_can_be_read(unwritable: Path, killed: Path, how: str) -> None:
    """status, list and trace work on a root that is read-only, also after a crash."""
    path = StateRoot(unwritable).journal
    if how == "closed":
        write(path, jobs=1)
    else:
        for file in killed.parent.iterdir():
            shutil.copy(file, unwritable)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT * FROM jobs")  # makes the file of shared memory
    close_to_writers(unwritable)
    before = contents(path)

    for words in (["status"], ["list", "--jobs"], ["trace", "r.1"], ["logs", "r.1"]):
        done = pikaci(unwritable, *words)
        assert (0, "") == (done.returncode, done.stderr), words
        assert "lint" in done.stdout or words[0] == "logs"

    assert before == contents(path)


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        ("resume", 4, "{journal}: the journal cannot be used: "),
        ("cancel --all", 4, "{journal}: the journal cannot be used: "),
        ("gc --keep 0", 2, "{root} cannot be written to"),
    ],
)
def test_who_must_write_says_that_it_cannot(
    unwritable: Path, words: str, code: int, what: str
) -> None:
    """A command that changes things fails on a read-only root with one clear error."""
    path = StateRoot(unwritable).journal
    write(path, jobs=1)
    close_to_writers(unwritable)
    before = contents(path)

    done = pikaci(unwritable, *words.split())

    brief, resolution = done.stderr.splitlines()
    assert code == done.returncode
    assert what.format(journal=path, root=unwritable) in brief
    assert resolution
    assert before == contents(path)


@pytest.mark.parametrize("version", OLDER)
def test_a_journal_of_an_older_version_is_brought_to_ours(tmp_path: Path, version: int) -> None:
    """Jobs, leases and owner are what the pikaci of that version said that they are."""
    path = tmp_path / "journal.sqlite3"
    expected = golden(path, version)

    with open_journal(path) as journal:
        folds = {row.id: journal.job(row.id) for row in journal.jobs()}
        jobs = json.loads(msgspec.json.encode(folds))
        found = {
            "owner": journal.owner,
            "unfinished": [row.id for row in journal.unfinished()],
            "leases": [[row.instance, row.job, row.kept] for row in journal.open_leases()],
            "jobs": {id: known(jobs[id], expected["jobs"].get(id, {})) for id in jobs},
        }
        key = journal.key
        places = {row.id: found_at(journal, row.id) for row in journal.jobs()}
    with open_journal(path) as journal:
        again = journal.key

    assert expected == found
    assert {id: (job.state, job.verdict) for id, job in folds.items()} == places
    assert key == again


class Tightened(JobSpec, frozen=True, forbid_unknown_fields=True):
    """A spec of other rules: what yesterday's jobs have is not allowed any more."""

    command: Annotated[str, msgspec.Meta(max_length=1)]
    cpus: Annotated[int, msgspec.Meta(ge=1000)] = 1000


@pytest.mark.parametrize("version", OLDER)
def test_a_rule_that_was_tightened_leaves_yesterday_s_journal_whole(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that refuse every spec, by type and by check: all is read, listed and cleaned up."""

    def refuse(spec: object) -> None:
        raise SpecError("command", "is not allowed any more")

    class Submitted(ev.Submitted, frozen=True, tag="submitted"):
        spec: Tightened

    monkeypatch.setattr(spec, "_judged", refuse)
    monkeypatch.setattr(spec, "check_form", refuse)
    others = [kind for kind in ev.WRITTEN_TYPES if kind is not ev.Submitted]
    monkeypatch.setattr(recorded, "_decoder", msgspec.json.Decoder(Union[Submitted, *others]))
    root = StateRoot(tmp_path)
    expected = golden(root.journal, version)

    with pytest.raises(SpecError):
        spec.check(JobSpec(command="true"))
    with open_journal(root.journal) as journal:
        found = json.loads(
            msgspec.json.encode({row.id: journal.job(row.id) for row in journal.jobs()})
        )
        assert {id: known(found[id], job) for id, job in expected["jobs"].items()} == expected[
            "jobs"
        ]
        assert set() == journal.unreadable(found)
        for id in found:
            trace.decode(trace.join(id, [body for _, body in journal.bodies(id)]))
        unfinished = {row.run for row in journal.unfinished()} | {
            lease.run for lease in journal.open_leases()
        }
        collect_garbage(root, journal, Bounds(runs=0), dry_run=False)
        assert unfinished == {row.run for row in journal.jobs()}
    assert "ok" == _journal(root).state


@pytest.mark.parametrize("version", OLDER)
def test_an_older_journal_that_cannot_be_written_is_read_whole(
    unwritable: Path, version: int
) -> None:
    """It stays of its version, and is read as ours."""
    path = StateRoot(unwritable).journal
    expected = golden(path, version)
    close_to_writers(unwritable)
    before = contents(path)
    with closing(JournalReader(partial(connect_to_read, path), path)) as journal:
        states = {row.id: (row.state, journal.job(row.id).state) for row in journal.jobs()}

    assert {id: 2 * (job["state"],) for id, job in expected["jobs"].items()} == states
    assert before == contents(path)


@pytest.mark.parametrize("version", OLDER)
def test_an_old_journal_says_which_leases_were_answered(tmp_path: Path, version: int) -> None:
    """As its events do: an instance whose create was answered need not be waited for."""
    path = tmp_path / "journal.sqlite3"
    golden(path, version)

    with open_journal(path) as journal:
        for lease in journal.open_leases():
            entries = [entry for _, entry in journal.entries(lease.job)]
            made = {e.instance for e in entries if isinstance(e, ev.DevicesConfigured)}
            assert lease.made == (lease.instance in made)


def golden(path: Path, version: int) -> dict[str, Any]:
    """A journal that the pikaci of the version wrote, at the path; and what it made of it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / f"journal-{version:04}.sql").read_text())
    found: dict[str, Any] = json.loads((DATA / f"journal-{version:04}.json").read_text())
    return found


@pytest.mark.parametrize("version", OLDER)
def test_columns_that_came_later_are_those_that_would_have_been_written(
    tmp_path: Path, version: int
) -> None:
    """What a migration makes of old entries is what today's pikaci writes with them."""
    golden(tmp_path / "old", version)

    async def copy() -> None:
        with open_journal(tmp_path / "old") as old, open_journal(tmp_path / "new") as new:
            for row in old.jobs():
                await new.append(*(entry for _, entry in old.entries(row.id)))
            for before, after in zip(old.jobs(), new.jobs(), strict=True):
                # A moment may be written in more than one way.
                names = {*before.__struct_fields__, "submitted", "begun", "moved"}
                for name in names - {"submitted_at", "begun_at", "moved_at"}:
                    assert getattr(before, name) == getattr(after, name), name

    trio.run(copy)


@pytest.mark.parametrize("version", OLDER)
@pytest.mark.parametrize(
    "body", [b"\x00", b"{", b"{}", b"[]", b"\xff\xfe", b'{"seq":"x","type":1}', b'{"seq":{}}']
)
def test_a_damaged_row_of_an_older_journal_costs_one_job(
    tmp_path: Path, version: int, body: bytes
) -> None:
    """Wherever it lies: the journal is brought to our version, and all other jobs are read."""
    path = tmp_path / "journal.sqlite3"
    expected = golden(path, version)
    with closing(sqlite3.connect(path)) as connection:
        events = connection.execute("SELECT id, job FROM entries").fetchall()
    for number, job in events[:: len(events) // 6]:
        for file in tmp_path.iterdir():
            file.unlink()
        golden(path, version)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE entries SET body = ? WHERE id = ?", (body, number))
        with open_journal(path) as journal:
            seen = {row.id: journal.look(row) for row in journal.jobs()}

        assert set(expected["jobs"]) == set(seen)
        for id, found in seen.items():
            assert id == job or not found.damage
            assert id == job or expected["jobs"][id]["state"] == found.state


def found_at(journal: Journal, id: str) -> tuple[State, Verdict | None]:
    """The state and the verdict by which the job is found, of all that there are."""

    def finds(**wanted: str) -> bool:
        return id in [row.id for _, row in journal.newest(limit=100, **wanted)]

    (state,) = (state for state in State if finds(state=state))
    verdicts = [verdict for verdict in Verdict if finds(verdict=verdict)]
    return state, verdicts[0] if verdicts else None


def known(now: Any, then: Any) -> Any:
    """A document with the fields that the older version knew, on every level."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {name: known(value, then[name]) for name, value in now.items() if name in then}
    return now


def test_every_older_version_has_a_journal_to_migrate() -> None:
    """Who adds a migration adds a journal that the version before has written."""
    assert [f"journal-{version:04}.sql" for version in OLDER] == sorted(
        path.name for path in DATA.glob("*.sql")
    )


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """All steps are one transaction: the journal of the older pikaci is still one."""
    path = tmp_path / "journal.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / "journal-0001.sql").read_text())
        connection.execute("CREATE TABLE entries_in_turn (x)")  # the name of the new index
        before = list(connection.iterdump())

    with pytest.raises(JournalError, match=str(path)), open_journal(path):
        pass

    with closing(sqlite3.connect(path)) as connection:
        assert before == list(connection.iterdump())
        assert (1,) == connection.execute("PRAGMA user_version").fetchone()
