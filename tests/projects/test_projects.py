"""Projects of other people: their own tests, in guests, as on this machine.

Plain `pytest` and CI run the small ones; `make test-projects` runs all, and prints the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.journal import open_journal
from tests.projects.counts import count
from tests.projects.fetch import cache_directory, fetch, unpack
from tests.projects.host import run_on_host
from tests.projects.project import Project, projects

PIKACI = str(Path(sys.executable).with_name("pikaci"))
# A cold run downloads a toolchain, makes an image of it, and builds.
SECS = 1800
MOST_LINES = 25
TEST = "test"
# What an sdist has so that it needs no repository.
_INSTEAD_OF_GIT = ("PKG-INFO", "*.egg-info", "src/*.egg-info")

pytestmark = pytest.mark.incus


class Workspace:
    """A project's sources, with pikaci in a state root of its own."""

    def __init__(self, project: Project, base: Path) -> None:
        self.project = project
        self.directory = base / project.name
        self._env = {**os.environ, "PIKACI_STATE_ROOT": str(base / "root"), "TERM": "dumb"}
        self._root = base / "root"
        unpack(fetch(project, cache_directory()), self.directory)
        if project.tag:
            _make_repository(self.directory, project.tag)

    def call(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """The stdout of a command of pikaci, which must exit with one of the codes."""
        done = subprocess.run(
            [PIKACI, *words],
            cwd=self.directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECS,
        )
        assert done.returncode in codes, f"{words}: {done.returncode}\n{self._tails(done.stderr)}"
        return done.stdout

    def run(self) -> Run:
        """Run all jobs."""
        begun = time.monotonic()
        document = json.loads(self.call("run", "--output", "json", codes=(0, 1)))
        return Run(self.project, document, time.monotonic() - begun)

    def clean_up(self) -> None:
        """Delete what pikaci made, images too; no instance may be left."""
        if not (self._root / "journal.sqlite3").exists():
            return
        self.call("gc", "--keep", "0")
        with open_journal(self._root / "journal.sqlite3") as journal:
            assert [] == journal.open_leases()
            owner = f"pikaci.output.owner={journal.owner}"
        incus = ("incus", "image", "--project", "pikaci")
        listed = subprocess.run(
            [*incus, "list", owner, "-f", "csv", "-c", "f"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        for fingerprint in listed.stdout.split():
            subprocess.run([*incus, "delete", fingerprint], check=True, timeout=SECS)

    def _tails(self, errors: str) -> str:
        logs = sorted(self._root.glob("jobs/*/attempt-*/guest.log"))
        return "\n".join(
            [errors[-2000:], *(log.read_text(errors="replace")[-2000:] for log in logs)]
        )


class Run:
    """What became of the jobs of a run, and how long it took in seconds."""

    def __init__(self, project: Project, document: Any, secs: float) -> None:
        self.secs = secs
        jobs = {job["name"]: job for job in document["jobs"]}
        self.reused = {name for name, job in jobs.items() if job["state"] == "reused"}
        self.built = set(jobs) - self.reused
        self.not_passed = {
            name: job["message"] for name, job in jobs.items() if job["verdict"] != "passed"
        }
        log = jobs[TEST]["log"]
        assert log is not None, f"the tests were not run: {self.not_passed}"
        self.log = Path(log).read_text(errors="replace")
        self.counts = count(project.counts, self.log)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Callable[[Project], Workspace]]:
    """Makes a project's workspace, and cleans up behind it."""
    made: list[Workspace] = []

    def make(project: Project) -> Workspace:
        made.append(Workspace(project, tmp_path))
        return made[-1]

    yield make
    for one in made:
        one.clean_up()


@pytest.mark.parametrize(
    "project",
    [
        pytest.param(one, id=name, marks=[] if one.small else [pytest.mark.projects])
        for name, one in projects().items()
    ],
)
def test_the_tests_of_a_project(
    project: Project,
    workspace: Callable[[Project], Workspace],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """As many pass and fail as on the host; again, only they run; a change runs what it concerns."""
    here = workspace(project)
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
    record_property("guest", cold.counts)
    assert set() == cold.reused
    assert [] == [text for text in project.says if text not in cold.log]

    second = here.run()
    record_property("second", second.secs)
    assert {TEST} == second.built
    assert cold.counts == second.counts

    if change := project.change:
        changed = here.directory / change.file
        before = changed.read_text()
        assert 1 == before.count(change.old), f"{change.old!r} in {change.file}:\n{before[:4000]}"
        changed.write_text(before.replace(change.old, change.new))
        third = here.run()
        assert set(change.builds) == third.built
        assert cold.counts == third.counts

    output = _on_host(project, tmp_path)
    if output is None:
        record_property("host", None)
        return
    host = count(project.counts, output)
    record_property("host", host)
    kinds = {*cold.counts, *host, *project.differs}
    assert project.differs == {
        kind: more for kind in kinds if (more := cold.counts.get(kind, 0) - host.get(kind, 0))
    }, output[-4000:]
    assert bool(project.differs) == bool(project.why)


def _on_host(project: Project, base: Path) -> str | None:
    sources = base / "host" / project.name
    sources.parent.mkdir()
    unpack(fetch(project, cache_directory()), sources)
    if project.tag:
        _make_repository(sources, project.tag)
    return run_on_host(project, sources, base / "host")


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
