"""However a command ends: no traceback, no exit code 1, and a line that says what it was."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
import sys
import tty
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import trio

from orchestrator.cli import ending, options
from orchestrator.errors import NoJobs, UsageError
from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from states import events as ev
from states.errors import PikaciError
from states.lifecycle import State
from states.outcome import Failure, FailureKind
from tests.forks import Forked
from tests.samples import sample_life, sample_note
from tests.unit.orchestrator.test_terminal import steering

COMMAND = "from orchestrator.cli import main; main()"
SECS = 60.0
NO_MORE: Mapping[str, str] = {}


def start(root: Path, *words: str, env: Mapping[str, str] = NO_MORE, **how: Any) -> Forked:
    """The command, where there is no incus."""
    return Forked(words, env=variables(root, env), **{"cwd": Path.cwd(), **how})


def start_python(
    root: Path, *words: str, code: str = COMMAND, env: Mapping[str, str] = NO_MORE, **how: Any
) -> subprocess.Popen[bytes]:
    """The same in a new Python, which runs the code."""
    command = [sys.executable, "-c", code, *words]
    how = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": Path.cwd(), **how}
    return subprocess.Popen(command, env=variables(root, env), **how)


def variables(root: Path, env: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": "", "HOME": str(root), "PIKACI_STATE_ROOT": str(root), **env}


def ended(process: subprocess.Popen[bytes] | Forked) -> tuple[int, str]:
    """Exit code and stderr."""
    _, errors = process.communicate(timeout=SECS)
    assert b"Traceback" not in (errors or b"")
    return process.returncode, (errors or b"").decode()


def fail(statement: str) -> str:
    """The command, whose `list` ends by a statement."""
    return f"""
import sys, orchestrator.cli.find
def read_existing_journal(*words, **options):
    {statement}
orchestrator.cli.find.read_existing_journal = read_existing_journal
{COMMAND}"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state root with a job that printed 5 MB."""
    where = StateRoot(tmp_path / "root")
    where.make()
    log = where.attempt_dir("r.1", 1) / "guest.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"0123456789abcde\n" * 327_680)

    async def write() -> None:
        with open_journal(where.journal) as journal:
            for event in sample_life():
                if isinstance(event, ev.ArtifactsReset):
                    event = msgspec.structs.replace(event, artifacts=str(log.parent))
                await journal.append(event)

    trio.run(write)
    return where.path


@pytest.mark.parametrize(
    "words",
    [["--help"], ["list"], ["list", "--output", "json"], ["logs"], ["logs", "--timestamps"]],
)
def test_a_full_stdout_is_told(root: Path, words: list[str]) -> None:
    """In one line, with the code of an infrastructure fault."""
    with Path("/dev/full").open("wb") as full:
        done = ended(start(root, *words, stdout=full))

    assert (4, "pikaci: stdout cannot be written: No space left on device\n") == done


@pytest.mark.parametrize(
    "words",
    [["--help"], ["list"], ["list", "--output", "jsonl"], ["logs"], ["logs", "--timestamps"]],
)
def test_nobody_who_reads_is_no_news(root: Path, words: list[str]) -> None:
    """As of a program that SIGPIPE ends; the reader has gone on purpose."""
    read, write = os.pipe()
    os.close(read)
    process = start(root, *words, stdout=write)
    os.close(write)

    assert (141, "") == ended(process)


@pytest.mark.parametrize("descriptors", [[0], [1], [2], [0, 1, 2]])
def test_streams_that_are_closed_are_nothing_to_fail_of(root: Path, descriptors: list[int]) -> None:
    """And no file of ours takes their place: the journal is not printed to."""
    before = (root / "journal.sqlite3").read_bytes()

    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    assert (0, "") == ended(start_python(root, "list", preexec_fn=close))
    assert 2 == ended(start_python(root, "list", "--nonsense", preexec_fn=close))[0]
    assert before == (root / "journal.sqlite3").read_bytes()


def test_a_full_stderr_changes_no_exit_code(root: Path) -> None:
    """The error cannot be told, and is the same one."""
    with Path("/dev/full").open("wb") as full:
        assert 2 == ended(start(root, "nonsense", stderr=full))[0]


def test_a_terminal_that_is_gone_is_told(root: Path) -> None:
    """Each write to one is EIO."""
    master, slave = pty.openpty()
    os.close(master)
    process = start(root, "logs", stdout=slave)
    os.close(slave)

    assert (4, "pikaci: stdout cannot be written: Input/output error\n") == ended(process)


def test_all_of_a_log_comes_through_a_pipe_that_does_not_block(root: Path) -> None:
    """Whoever made the pipe so reads in its own time."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = start(root, "logs", stdout=write)
    os.close(write)
    with open(read, "rb") as pipe:
        got = pipe.read()

    assert (0, "") == ended(process)
    assert (StateRoot(root).attempt_dir("r.1", 1) / "guest.log").read_bytes() == got


@pytest.mark.parametrize("locale", ["POSIX", "latin-1"])
def test_what_a_locale_cannot_print_is_escaped(root: Path, locale: str) -> None:
    """And JSON is UTF-8, whatever the locale is."""
    env = {
        "POSIX": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        "latin-1": {"PYTHONIOENCODING": "latin-1"},
    }[locale]
    code = """
from orchestrator.cli.output import print_json
from orchestrator.cli.streams import open_streams
open_streams()
print("\\u6f22\\u2192")
print_json("\\u6f22\\U0001f600\\x9b\\u202e")"""
    process = start_python(root, code=code, env=env)
    out, errors = process.communicate(timeout=SECS)

    assert (0, b"") == (process.returncode, errors)
    assert b"\\u6f22\\u2192" == out.splitlines()[0]
    assert '"\u6f22\U0001f600\\u009b\\u202e"'.encode() == out.splitlines()[1]
    assert "\u6f22\U0001f600\x9b\u202e" == msgspec.json.decode(out.splitlines()[1])


ENDS: dict[str, tuple[str, int, str]] = {
    "a bug": ("return {}['x']", 4, "pikaci: internal error: KeyError: 'x'"),
    "a recursion": ("read_existing_journal()", 4, "pikaci: internal error: RecursionError"),
    "no memory": ("raise MemoryError", 4, "pikaci: there is not enough memory"),
    "a full disk": ("raise OSError(28, 'No space left', '/x')", 4, "pikaci: No space left: /x"),
    "no descriptors": ("raise OSError(24, 'Too many open files')", 4, "pikaci: Too many open files"),
    "an interrupt": ("raise KeyboardInterrupt", 130, ""),
    "a group": ("raise ExceptionGroup('', [ExceptionGroup('', [OSError(5, 'EIO')])])", 4, "pikaci: EIO"),
    "an interrupt among others": (
        "raise BaseExceptionGroup('', [OSError(5, 'EIO'), KeyboardInterrupt()])", 130, "",
    ),
    "an exit": ("sys.exit('words')", 4, ""),
    "the end of stdin": ("raise EOFError", 130, ""),
    "an error that cannot be shown": (
        "raise type('Bad', (Exception,), {'__str__': lambda self: 1 / 0})", 4, "pikaci: internal error: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", ENDS)
def test_no_exception_leaves_as_a_traceback(root: Path, how: str) -> None:
    """Or as the exit code of a command that failed."""
    statement, code, words = ENDS[how]
    found, errors = ended(start_python(root, "list", code=fail(statement)))

    assert code == found
    assert errors.strip().startswith(words)
    assert bool(words) == bool(errors.strip())


def test_a_bug_leaves_its_traceback_in_the_state_root(root: Path) -> None:
    """For its user alone, and the last one only; or on stderr, if that was asked for."""
    for number in range(2):
        _, errors = ended(start_python(root, "list", code=fail(f"raise KeyError({number})")))
        kept = root / ending.TRACEBACK
        assert f"  -> this is a bug in pikaci; the traceback is in {kept}" == errors.splitlines()[1]
        assert kept.read_text().endswith(f"KeyError: {number}\n")
    assert 1 == kept.read_text().count("Traceback")
    assert 0o600 == kept.stat().st_mode & 0o777

    code = fail("raise KeyError(3)")
    process = start_python(root, "list", code=code, env={ending.DEBUG: "1"})
    _, shown = process.communicate(timeout=SECS)
    assert b"KeyError: 3" in shown
    assert b"Traceback" in shown


@pytest.mark.parametrize("spare", [0, 1, 2, 3, 4, 6])
def test_few_descriptors_are_told(root: Path, spare: int) -> None:
    """Wherever they are at their end: in an import, with the journal, in telling of it."""
    code = f"""
import resource
import orchestrator.cli
resource.setrlimit(resource.RLIMIT_NOFILE, (3 + {spare},) * 2)
{COMMAND}"""
    found, errors = ended(start_python(root, "list", code=code))

    assert (found, errors) == (0, "") or (found == 4 and errors.startswith("pikaci: "))


ERRORS: list[tuple[BaseException, int]] = [
    (UsageError("x"), 2),
    (NoJobs("x"), 5),
    (PikaciError("x"), 4),
    (click.UsageError("x"), 2),
    (click.exceptions.Abort(), 130),
    (BrokenPipeError(errno.EPIPE, "of another pipe"), 4),
    (ExceptionGroup("", [ValueError(), UsageError("x")]), 2),
    (SystemExit(3), 3),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_each_kind_of_error_has_its_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever group it came in."""
    monkeypatch.setattr(options, "last_state_root", None)
    assert code == ending.tell(error)


@pytest.mark.parametrize("broken", [OSError(28, "full"), ValueError("closed")])
def test_telling_never_raises(monkeypatch: pytest.MonkeyPatch, broken: Exception) -> None:
    """When stderr takes nothing."""

    def echo(*words: object, **options: object) -> None:
        raise broken

    monkeypatch.setattr(click, "echo", echo)
    assert 4 == ending.tell(PikaciError("x"))


HOSTILE = (
    "\x1b]0;title\x07\x1b[2J\x9b2J\x08\x7f\u202e\u2066\u200f\u061c \x1b[31mred\ttab\nnext\x1bPq\x9c"
)


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "list --jobs",
        "list --output json",
        "list --output jsonl",
        "status",
        "status --output json",
        "status --output jsonl",
        "status --nonsense\x1b[2J",
        "status no\x1b[2Jthing",
        "logs",
        "logs -f",
        "logs -n 1",
        "logs --timestamps",
        "logs --grep next",
        "logs --output json",
        "logs --output jsonl",
        "trace",
        "trace -v",
        "trace --json",
        "trace export",
        "trace export --format perfetto",
        "trace export --format otlp",
        "trace export --format mermaid",
        "trace export --format html",
    ],
)
def test_a_terminal_gets_nothing_that_steers_it(root: Path, words: str) -> None:
    """Whatever a guest, or a journal, gives to be shown."""
    attempt = StateRoot(root).attempt_dir("s.1", 1)
    attempt.mkdir(parents=True)
    (attempt / "guest.log").write_bytes(HOSTILE.encode() + b"\xff\302\000\2332J\n\x9b2J")
    life = sample_life(ev.Submitted, ev.ArtifactsReset, ev.Failed)
    failure = Failure(
        kind=FailureKind.INFRASTRUCTURE, phase=State.SUBMITTED, message=HOSTILE, resolution=HOSTILE
    )
    life[0] = msgspec.structs.replace(life[0], name=HOSTILE)
    life[1] = msgspec.structs.replace(life[1], artifacts=str(attempt))
    life[2] = msgspec.structs.replace(life[2], failure=failure)
    warned = msgspec.structs.replace(sample_note(ev.Warned), message=HOSTILE)

    async def write() -> None:
        with open_journal(StateRoot(root).journal) as journal:
            for entry in (*life, warned):
                await journal.append(msgspec.structs.replace(entry, job="s.1", **run(entry)))

    def run(entry: ev.Entry) -> dict[str, str]:
        return {"run": "s"} if isinstance(entry, ev.Submitted) else {}

    trio.run(write)
    master, slave = pty.openpty()
    tty.setraw(slave)
    process = start(root, *words.split(" "), stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    shown = b""
    with suppress(OSError):  # EIO: nobody has the terminal any more
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)

    assert process.wait(SECS) in (0, 2)
    assert shown
    assert [] == steering(shown.decode(), colours=True)
