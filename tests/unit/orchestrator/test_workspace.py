"""Which directory is the workspace: the nearest with a job file, unless it may be a stranger's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.cli import options
from orchestrator.cli.workspace import find_workspace
from orchestrator.errors import UsageError
from orchestrator.state_root import default_state_root
from tests.unit.orchestrator.test_completion import completed
from tests.unit.orchestrator.test_ending import ended, start

OTHER = 12_345


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a job file, and a directory deep in it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "pikaci.toml").write_text('schema = 1\n[jobs.test]\ncommand = "true"\n')
    return tmp_path


def test_the_nearest_job_file_decides(project: Path) -> None:
    """In the directory itself, then upwards; what is beside it does not count."""
    (project / "a" / "pikaci.toml").write_text("")

    assert project == find_workspace(project)
    assert project / "a" == find_workspace(project / "a" / "b")
    (project / "a" / "pikaci.toml").unlink()
    assert project == find_workspace(project / "a" / "b")


def test_without_a_job_file_the_directory_itself_is_it(tmp_path: Path) -> None:
    """As before there was a search."""
    assert tmp_path == find_workspace(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("what", ["file", "directory", "link", "target"])
def test_a_strangers_job_file_is_refused_from_below(project: Path, what: str) -> None:
    """Whoever owns one of them decides what is in it; in its own directory it was chosen."""
    file = project / "pikaci.toml"
    if what in ("link", "target"):
        file.rename(project / "real")
        file.symlink_to("real")
    strange = {"directory": project, "target": project / "real"}.get(what, file)
    os.chown(strange, OTHER, OTHER, follow_symlinks=False)

    with pytest.raises(UsageError) as refused:
        find_workspace(project / "a")

    assert f"{file} is not used" in refused.value.brief
    assert f"the user id {OTHER}" in refused.value.brief
    assert "--workspace ." in refused.value.resolution
    assert project == find_workspace(project)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_who_called_sudo_is_trusted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same person."""
    for path in (project, project / "pikaci.toml"):
        os.chown(path, OTHER, OTHER)
    monkeypatch.setenv("SUDO_UID", str(OTHER))

    assert project == find_workspace(project / "a")


def test_a_link_that_leads_nowhere_is_the_job_file(project: Path) -> None:
    """Its reader says that it is not there; another one further up is not what was meant."""
    (project / "a" / "pikaci.toml").symlink_to("gone")

    assert project / "a" == find_workspace(project / "a" / "b")


def test_every_command_agrees_on_workspace_and_state_root(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then nothing has to be added to what is typed next."""
    monkeypatch.chdir(project / "a" / "b")
    monkeypatch.setattr(options, "root_flags", "")

    found = options.real_workspace(None)
    root = options.state_root_of(found, None)

    assert (project, default_state_root(project)) == (found, root.path)
    assert "" == options.root_flags
    options.state_root_of(options.real_workspace(Path(".")), None)
    assert f" --workspace {project / 'a' / 'b'}" == options.root_flags


def test_run_reads_the_file_above(project: Path) -> None:
    """A word that is no job is told with the file's path."""
    process = start(project / "root", "run", "tset", cwd=project / "a" / "b",
                    env={"PYTHONPATH": str(Path.cwd())})  # fmt: skip

    code, errors = ended(process)

    assert 2 == code
    assert f"{project / 'pikaci.toml'}: there is no job 'tset': did you mean `test`?" in errors


def test_the_shell_completes_jobs_of_the_file_above(project: Path) -> None:
    """As `run` would find them."""
    words = completed(project, "pikaci run ", cwd=project / "a" / "b")

    assert ["test"] == words
