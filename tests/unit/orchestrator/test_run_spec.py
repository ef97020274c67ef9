"""`pikaci run --spec -`: jobs as JSON from a program, and what it gets back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.attempt.archive import CollectedFile, Manifest, write_manifest
from orchestrator.cli import pikaci, run_request
from orchestrator.cli.last_lines import with_log_ends
from orchestrator.errors import UsageError
from orchestrator.job.submission import Request
from orchestrator.jobfile import MAX_BYTES
from orchestrator.report import RunReport, run_report
from states.errors import PikaciError
from states.job import Job
from states.outcome import Outcome
from states.spec import JobSpec


class Asked:
    """What the command would run; the jobs that it gets back are `jobs`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.jobs: list[Job] = []

    def keep(self, request: Request, *_: Any, **__: Any) -> RunReport:
        self.requests.append(request)
        return run_report("r", self.jobs)

    def __call__(self, given: str | bytes, *words: str) -> Request:
        done = CliRunner().invoke(
            pikaci, ["run", "--spec", "-", *words], input=given, standalone_mode=False
        )
        if done.exception:
            raise done.exception
        return self.requests[-1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    found = Asked()
    monkeypatch.setattr(run_request, "run_request", found.keep)
    monkeypatch.setenv("PIKACI_STATE_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return found


def test_one_job_and_several(asked: Asked, tmp_path: Path) -> None:
    """A job needs no name; a job file as JSON has names, and can be asked for some of them."""
    (tmp_path / "deps").mkdir()
    one = asked('\ufeff{"command": "make", "workspace_deps": "deps"}')
    spec = JobSpec(command="make", workspace_deps=str(tmp_path / "deps"))
    assert {"job": spec} == one.specs

    jobs = {"a": {"command": "x"}, "b": {"command": "y", "needs": ["a"]}, "c": {"command": "z"}}
    document = {"schema": 1, "jobs": jobs, "snapshot": {"exclude": ["*.o"]}}
    several = asked(json.dumps(document), "b")
    assert ["a", "b"] == list(several.specs)
    assert ("*.o",) == several.exclude


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "stdin: is empty"),
        ("{", "stdin: is not JSON: "),
        (b'{"command": "\xff"}', "stdin: is not JSON: "),
        ('{"command": "\\ud800"}', "stdin: is not JSON: "),
        ("[" * 100_000, "stdin: is nested too deeply"),
        ('["make"]', "stdin: is not a JSON object"),
        (" " * (MAX_BYTES + 1), "stdin: has more than 1 MiB"),
        ("{}", "stdin: command is missing; allowed: text"),
        ('{"command": "x", "cpu": 1}', "stdin: cpu is an unknown key: did you mean `cpus`?"),
        ('{"command": "x", "cpus": 0}', "stdin: cpus is 0; allowed: a whole number from 1 to 1024"),
        ('{"command": "x", "env": {"A": "\\u0000"}}', "stdin: env.A has a NUL byte"),
        ('{"schema": 1, "jobs": {"a": {}}}', "stdin: jobs.a.command is missing; allowed: text"),
        ('{"jobs": {"a": {"command": "x"}}}', "stdin: schema is missing; allowed: schema = 1"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_run(
    asked: Asked, given: str | bytes, told: str, tmp_path: Path
) -> None:
    """Where, what, and what is allowed; not even the directory for the artifacts is made."""
    with pytest.raises(UsageError) as caught:
        asked(given, "--artifacts-to", str(tmp_path / "out"))

    assert caught.value.brief.startswith(told)
    assert "\n" not in caught.value.brief
    assert ([], []) == (asked.requests, list(tmp_path.iterdir()))


def test_all_mistakes_at_once(asked: Asked) -> None:
    """Each on its line."""
    with pytest.raises(UsageError) as caught:
        asked('{"cpus": "2", "memory": 4}')

    assert "stdin has 3 mistakes" == caught.value.brief
    assert 3 == len(caught.value.details.splitlines())


@pytest.mark.parametrize(
    "words",
    [("--file", "x"), ("--", "true"), ("--artifacts-to", "full"), ("--cpus", "2"),
     ("--artifacts-to", "file"), ("--artifacts-to", "out", "--repeat", "2")],
)  # fmt: skip
def test_what_does_not_go_with_it(asked: Asked, words: tuple[str, ...], tmp_path: Path) -> None:
    """One way to say what is run, and one empty place for what it leaves."""
    (tmp_path / "full" / "old").mkdir(parents=True)
    (tmp_path / "file").touch()

    with pytest.raises(UsageError):
        asked('{"command": "true"}', *words)

    assert [] == asked.requests


def left(base: Path, name: str, text: str) -> Job:
    """A job that has left a file `out/result` with this text, and said it at its end."""
    attempt = base / "jobs" / name
    path = attempt / "artifacts" / "out" / "result"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    file = CollectedFile(path="out/result", size=len(text), sha256=digest)
    write_manifest(attempt, Manifest(files=(file,), refused=(), problem=""))
    lines = "".join(f"line {number}\n" for number in range(100))
    (attempt / "guest.log").write_text(f"{lines}\x1b[31m{text}\x1b[0m\n")
    return Job(id=f"r.{name}", name=name, artifacts=str(attempt), outcome=Outcome.FAILED)


def test_artifacts_are_put_where_they_were_asked_for(asked: Asked, tmp_path: Path) -> None:
    """Of one job right there; of several each in a directory of its name."""
    asked.jobs = [left(tmp_path, "a", "of a")]
    asked('{"command": "true"}', "--artifacts-to", "one/new")
    asked.jobs += [left(tmp_path, "b", "of b"), Job(id="r.c", name="c")]
    asked('{"command": "true"}', "--artifacts-to", "several")

    assert "of a" == (tmp_path / "one/new/out/result").read_text()
    assert "of b" == (tmp_path / "several/b/out/result").read_text()
    assert ["a", "b"] == sorted(path.name for path in (tmp_path / "several").iterdir())


def test_artifacts_that_cannot_be_put_there_are_no_mistake_of_the_caller(
    asked: Asked, tmp_path: Path
) -> None:
    """The run has ended by then: exit code 4, and not 2."""
    asked.jobs = [left(tmp_path, "a", "of a")]
    (tmp_path / "jobs/a/artifacts/out/result").write_text("else")

    with pytest.raises(PikaciError) as caught:
        asked('{"command": "true"}', "--artifacts-to", "out")

    assert not isinstance(caught.value, UsageError)


def test_the_report_has_the_last_lines_of_each_log(tmp_path: Path) -> None:
    """A bounded number of them, as a terminal shows them; none of a job that has no log."""
    jobs = [left(tmp_path, "a", "sorry"), Job(id="r.b", name="b")]

    first, second = with_log_ends(run_report("r", jobs), jobs).jobs

    assert (40, "sorry") == (len(first.log_end), first.log_end[-1])
    assert () == second.log_end
