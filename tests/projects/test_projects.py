"""Projects of other people: their own tests, in guests, as on this machine.

Plain `pytest` and CI run the small ones; `make test-projects` runs all, and prints the figures.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.projects.counts import count
from tests.projects.fetch import cache_directory, fetch, unpack
from tests.projects.host import run_on_host
from tests.projects.project import Project, projects
from tests.projects.workspace import Workspace

MOST_LINES = 25
TEST = "test"
# What an sdist has so that it needs no repository.
_INSTEAD_OF_GIT = ("PKG-INFO", "*.egg-info", "src/*.egg-info")

pytestmark = pytest.mark.incus


@pytest.mark.parametrize(
    "project",
    [
        pytest.param(one, id=name, marks=[] if one.small else [pytest.mark.projects])
        for name, one in projects().items()
    ],
)
def test_the_tests_of_a_project(
    project: Project,
    workspace: Workspace,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """As many pass and fail as on the host; again, only they run; a change runs what it concerns."""
    here = workspace
    _unpack(project, here.directory)
    file = here.directory / "pikaci.toml"
    if project.job_file is None:
        here.call("init")
    else:
        text = project.job_file.read_text()
        assert len(text.splitlines()) <= MOST_LINES
        file.write_text(text)
    record_property(
        "lines", f"{len(file.read_text().splitlines())}{'' if project.job_file else ' (init)'}"
    )

    cold = here.run()
    record_property("cold", cold.secs)
    results = count(project.counts, cold.log(TEST))
    record_property("guest", results)
    assert set() == cold.reused
    assert [] == [text for text in project.says if text not in cold.log(TEST)]

    second = here.run()
    record_property("second", second.secs)
    assert {TEST} == second.built
    assert results == count(project.counts, second.log(TEST))

    if change := project.change:
        changed = here.directory / change.file
        before = changed.read_text()
        assert 1 == before.count(change.old), f"{change.old!r} in {change.file}:\n{before[:4000]}"
        changed.write_text(before.replace(change.old, change.new))
        third = here.run()
        assert set(change.builds) == third.built
        assert results == count(project.counts, third.log(TEST))

    output = _on_host(project, tmp_path)
    if output is None:
        record_property("host", None)
        return
    host = count(project.counts, output)
    record_property("host", host)
    assert _comparable(project, output) == _comparable(project, cold.log(TEST)), output[-4000:]


def _comparable(project: Project, output: str) -> dict[str, int]:
    """The counts, as if every test that may fail had passed."""
    found = Counter(count(project.counts, output))
    excused = sum(f"\nFAILED {name} " in output for name in project.may_fail)
    found += Counter(passed=excused)
    found.subtract(failed=excused)
    return dict(+found)


def _on_host(project: Project, base: Path) -> str | None:
    sources = base / "host" / project.name
    sources.parent.mkdir()
    _unpack(project, sources)
    return run_on_host(project, sources)


def _unpack(project: Project, directory: Path) -> None:
    unpack(fetch(project, cache_directory()), directory)
    if project.tag:
        _make_repository(directory, project.tag)


def _make_repository(directory: Path, tag: str) -> None:
    for glob in _INSTEAD_OF_GIT:
        for path in directory.glob(glob):
            subprocess.run(["rm", "-r", str(path)], check=True)
    for words in (
        ("init", "--quiet"),
        ("add", "--all"),
        (
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.org",
            "commit",
            "--quiet",
            "-m",
            "sources",
        ),
        ("tag", tag),
    ):
        subprocess.run(["git", *words], cwd=directory, check=True, timeout=60)
