"""What a shell completes: words of the command line, of the job file and of the journal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from orchestrator.journal import open_journal
from orchestrator.state_root import StateRoot
from tests import forks
from tests.samples import sample_life
from tests.unit.orchestrator.test_ending import COMMAND

JOBS = 'schema = 1\n[jobs.lint]\ncommand = "x"\n[jobs.list-all]\ncommand = "y"\n[jobs.test]\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with a job file, and a state root in it."""
    (tmp_path / "pikaci.toml").write_text(JOBS)
    return tmp_path


def completed(
    place: Path, line: str, *, shell: str = "bash", cwd: Path | None = None, **env: str
) -> list[str]:
    """The words for the last one of a line, typed in the directory."""
    done = run(place, cwd=cwd or place, _PIKACI_COMPLETE=f"{shell}_complete", COMP_WORDS=line,
               COMP_CWORD=str(len(line.split(" ")) - 1), **env)  # fmt: skip
    assert (0, b"") == (done.returncode, done.stderr)
    return [word.partition(",")[2] for word in done.stdout.decode().splitlines() if word]


def run(
    place: Path, *words: str, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    variables = {"PATH": "", "HOME": str(place), "PIKACI_STATE_ROOT": str(place / "root"),
                 "PYTHONPATH": str(Path.cwd()), **env}  # fmt: skip
    return forks.run(words, env=variables, cwd=cwd or place)


def test_jobs_of_the_file_are_completed(place: Path) -> None:
    """By their beginning, each once; with the file that is named."""
    (place / "other.toml").write_text("[jobs.deploy]\n")

    assert ["lint", "list-all"] == completed(place, "pikaci run li")
    assert ["list-all", "test"] == completed(place, "pikaci run lint ")
    assert ["deploy"] == completed(place, "pikaci run --file other.toml ")
    (place / "outputs.toml").write_text('[jobs.lint]\n[jobs.lib]\noutput = "/artifacts/l"\n')
    assert ["lib"] == completed(place, "pikaci run --file outputs.toml --fresh=l")
    assert "run" in completed(place, "pikaci r")
    assert ["jsonl"] == completed(place, "pikaci list --output jsonl")


@pytest.mark.parametrize(
    "command", ["status", "logs", "trace show", "cancel", "rerun", "artifacts"]
)
def test_jobs_and_runs_are_completed(place: Path, command: str) -> None:
    """Of the state root; ids once there is a point."""
    root = StateRoot(place / "root")
    root.make()
    life = sample_life()

    async def write() -> None:
        with open_journal(root.journal) as journal:
            await journal.append(*life)

    trio.run(write)
    run_id, name = life[0].job.partition(".")[0], getattr(life[0], "name", "")

    words = completed(place, f"pikaci {command} ")
    assert [name, run_id] == words
    assert [life[0].job] == completed(place, f"pikaci {command} {run_id}.")


@pytest.mark.parametrize("text", ["", "jobs = 1", "no toml", "[jobs]\n", "\0"])
def test_what_is_wrong_completes_nothing(place: Path, text: str) -> None:
    """No error is printed, and nothing is created."""
    (place / "pikaci.toml").write_text(text)

    assert [] == completed(place, "pikaci run ")
    assert [] == completed(place, "pikaci logs ")
    assert [] == completed(place, "pikaci logs ", PIKACI_STATE_ROOT="/proc/nothing")
    assert ["pikaci.toml"] == [path.name for path in place.iterdir()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(place: Path, shell: str) -> None:
    """It calls pikaci with the variable."""
    done = run(place, "completion", shell)

    assert (0, b"") == (done.returncode, done.stderr)
    assert f"_PIKACI_COMPLETE={shell}_complete".encode() in done.stdout


def test_it_imports_nothing_heavy(place: Path) -> None:
    """Words of the job file need neither trio nor the library."""
    code = f"""
import atexit, sys
atexit.register(lambda: open("loaded", "w").write(" ".join(sys.modules)))
{COMMAND}"""
    variables = {"PATH": "", "HOME": str(place), "PYTHONPATH": str(Path.cwd()),
                 "_PIKACI_COMPLETE": "bash_complete", "COMP_WORDS": "pikaci run ",
                 "COMP_CWORD": "2"}  # fmt: skip
    subprocess.run([sys.executable, "-c", code], env=variables, cwd=place, check=True, timeout=60)

    loaded = (place / "loaded").read_text().split()
    assert {"trio", "sqlite3", "rich", "starlette"}.isdisjoint(loaded)
