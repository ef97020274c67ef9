"""What a command loads before it can say anything: that is most of the time of a short one."""

from __future__ import annotations

import subprocess
import sys
from inspect import get_annotations
from pathlib import Path

import pytest
import trio

from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from states import events as ev
from states.spec import JobSpec
from tests.samples import sample_life
from tests.unit.orchestrator.test_ending import COMMAND

HEAVY = {
    *("click.shell_completion", "ctypes", "h11", "httpx", "jinja2", "rich", "starlette", "trio"),
    *("importlib.resources", "tempfile"),  # a tenth of the time of `list`
}
# What is needed for a job, and not for a list of them: 5 ms for `transitions` alone.
OF_JOBS = {"hashlib", "logging", "states.rules", "traceback", "transitions"}
LOADED = f"""
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=open("loaded", "w")))
{COMMAND}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state root with a job in its journal."""
    path = tmp_path_factory.mktemp("start-up")
    root = StateRoot(path / "root")
    root.make()

    async def write() -> None:
        with open_journal(root.journal) as journal:
            await journal.append(*sample_life())

    trio.run(write)
    return path


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("--help", {*HEAVY, *OF_JOBS, "msgspec", "sqlite3"}),
        ("run --help", {*HEAVY, *OF_JOBS, "sqlite3"}),
        ("list", {*HEAVY, *OF_JOBS, "orchestrator.report"}),
        ("status", {*HEAVY, "hashlib", "states.rules", "orchestrator.report"}),
        ("logs", HEAVY),
        ("kept", HEAVY),
        ("artifacts --output json", HEAVY),
        ("outputs", HEAVY),
    ],
)
def test_a_command_that_only_looks_loads_nothing_heavy(
    place: Path, command: str, heavy: set[str]
) -> None:
    """Neither what runs jobs, nor what draws them, nor the service."""
    variables = {
        "PATH": "",
        "HOME": str(place),
        "PYTHONPATH": str(Path.cwd()),
        "PIKACI_STATE_ROOT": str(place / "root"),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *command.split()],
        env=variables,
        cwd=place,
        capture_output=True,
        timeout=60,
    )

    assert (0, b"") == (done.returncode, done.stderr)
    assert set() == heavy & set((place / "loaded").read_text().split())


def test_what_runs_jobs_loads_what_few_of_them_need_only_then() -> None:
    """A job that passes on this host has no reason to look for, and no hosts to read of."""
    code = "import orchestrator.engine, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert set() == {"states.reason_rules", "tomllib"} & set(done.stdout.split())


@pytest.mark.parametrize("kind", [*ev.WRITTEN_TYPES, JobSpec], ids=lambda kind: kind.__name__)
def test_what_entries_consist_of_is_known_without_compiling_it(kind: type) -> None:
    """As text, annotations took most of the time until the first entry was read."""
    assert [] == [hint for hint in get_annotations(kind).values() if isinstance(hint, str)]
