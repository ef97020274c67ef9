"""`pikaci init` in a directory."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

from tests.unit.orchestrator.test_ending import ended, start

ENV = {"PYTHONPATH": str(Path(__file__).parents[4])}
MAKEFILE = "all:\n\ntest:\n\techo fine\n"


def init(directory: Path, *words: str, **env: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command in the directory."""
    process = start(directory.parent / "root", "init", *words, cwd=directory, env=ENV | env)
    out, errors = process.communicate(timeout=60)
    assert not (directory.parent / "root").exists()
    return process.returncode, out.decode(), errors.decode()


def project(base: Path, **files: str) -> Path:
    directory = base / "project"
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def test_it_writes_a_file_and_says_what_to_type_next(tmp_path: Path) -> None:
    """The jobs with their comments, then the commands."""
    directory = project(tmp_path, Makefile=MAKEFILE)

    code, out, errors = init(directory)

    assert (0, "") == (code, errors)
    assert f"wrote {directory}/pikaci.toml for make" in out
    assert "  test       What Makefile does" in out
    assert "-> pikaci run --dry-run" in out
    document = tomllib.loads((directory / "pikaci.toml").read_text())
    assert "make test" in document["jobs"]["test"]["command"]


def test_a_file_that_is_there_is_not_changed(tmp_path: Path) -> None:
    """Nor is a link that leads nowhere followed."""
    directory = project(tmp_path, Makefile=MAKEFILE)
    file = directory / "pikaci.toml"
    file.write_text("mine")

    code, _, errors = init(directory)

    assert 2 == code
    assert f"pikaci: {file} exists already, and was not changed\n" in errors
    assert "mine" == file.read_text()
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    assert 2 == init(directory)[0]
    assert not (tmp_path / "elsewhere").exists()


def test_a_job_file_further_up_is_named(tmp_path: Path) -> None:
    """From now on another one is used here."""
    directory = project(tmp_path, Makefile=MAKEFILE)
    (tmp_path / "pikaci.toml").write_text("")

    _, out, _ = init(directory)

    assert f"so far, pikaci used {tmp_path}/pikaci.toml in this directory" in out


def test_print_writes_nothing(tmp_path: Path) -> None:
    """Also where there is a file, to compare with it."""
    directory = project(tmp_path, Makefile=MAKEFILE)
    (directory / "pikaci.toml").write_text("mine")

    code, out, _ = init(directory, "--print")

    assert 0 == code
    assert ["test"] == list(tomllib.loads(out)["jobs"])
    assert "mine" == (directory / "pikaci.toml").read_text()


def test_where_nothing_is_recognised_nothing_is_written(tmp_path: Path) -> None:
    """With what was seen, and what to do instead."""
    directory = project(tmp_path, README="hello")
    (directory / "pom.xml").write_text("")

    code, _, errors = init(directory)

    assert 2 == code
    assert "no file here says how to test the project" in errors
    assert "pom.xml: init does not know Maven" in errors
    assert "pikaci run -- COMMAND" in errors
    assert ["README", "pom.xml"] == sorted(os.listdir(directory))


def test_pipes_and_links_to_elsewhere_are_not_read(tmp_path: Path) -> None:
    """A pipe would hang; what a link leads to is not the project's."""
    directory = project(tmp_path, Makefile=MAKEFILE)
    os.mkfifo(directory / "setup.cfg")
    (tmp_path / "outside.json").write_text('{"scripts": {"test": "echo secret"}}')
    (directory / "package.json").symlink_to(tmp_path / "outside.json")

    code, out, _ = init(directory, "--print")

    assert 0 == code
    assert "npm" not in out


def test_the_host_s_own_index_is_used_by_its_jobs(tmp_path: Path) -> None:
    """The file itself names no host: elsewhere it means the indexes of that machine."""
    directory = project(tmp_path, **{"requirements.txt": "flask\n", "test_app.py": ""})
    here = {"HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}

    _, plain, _ = init(directory, "--print", **here)
    _, mirrored, _ = init(
        directory, "--print", **here, PIP_INDEX_URL="https://user:secret@index.example/simple"
    )

    assert tomllib.loads(plain)["jobs"]["deps"].get("host_mirrors") is None
    assert tomllib.loads(mirrored)["jobs"]["deps"]["host_mirrors"] is True
    assert "host_mirrors" not in tomllib.loads(mirrored)["jobs"]["test"]
    assert "example" not in mirrored


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As by every command."""
    process = start(tmp_path / "root", "init", "--workspace", "/no/such", env=ENV)

    code, errors = ended(process)

    assert 2 == code
    assert "--workspace /no/such: there is no such directory" in errors


def test_a_repository_with_a_commit_is_used_for_the_version(tmp_path: Path) -> None:
    """Before the first commit there is nothing to ask; a broken repository is none."""
    pyproject = '[build-system]\nrequires = ["setuptools-scm"]\n'
    directory = project(tmp_path, **{"pyproject.toml": pyproject})
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(directory))

    subprocess.run([*git, "init", "--quiet"], check=True)
    assert "[snapshot]" not in init(directory, "--print")[1]
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "a"], check=True)
    assert "[snapshot]\ngit = true\n" in init(directory, "--print")[1]
    (directory / ".git" / "HEAD").write_text("nothing")
    assert "[snapshot]" not in init(directory, "--print")[1]
