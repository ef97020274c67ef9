"""Options of `pikaci run` that end up in the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli import pikaci, run_request
from orchestrator.errors import UsageError
from orchestrator.job.submission import Request, judge
from orchestrator.report import RunReport
from states.outcome import Verdict

FILE = """
schema = 1
[jobs.deps]
command = "make"
output = "/artifacts/out"
[jobs.tools]
command = "make"
output = "/artifacts/out"
[jobs.test]
command = "use"
workspace_deps = { job = "deps" }
[jobs.lint]
command = "true"
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Request]:
    """The requests that the command would run."""
    found: list[Request] = []

    def keep(request: Request, *_: Any, **__: Any) -> RunReport:
        found.append(judge(request).request)
        return RunReport(run="r", outcome=Verdict.PASSED, exit_code=0, jobs=())

    monkeypatch.setattr(run_request, "run_request", keep)
    monkeypatch.setenv("PIKACI_STATE_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pikaci.toml").write_text(FILE)
    return found


def run(*words: str) -> None:
    done = CliRunner().invoke(pikaci, ["run", *words], standalone_mode=False)
    if done.exception:
        raise done.exception


@pytest.mark.parametrize(
    ("words", "jobs", "fresh"),
    [
        ((), {"deps", "tools", "test", "lint"}, ()),
        (("--fresh",), {"deps", "tools", "test", "lint"}, ("deps", "tools")),
        (("--fresh", "test"), {"deps", "test"}, ("deps",)),
        (("test", "--fresh"), {"deps", "test"}, ("deps",)),
        (("--fresh=deps", "test", "lint"), {"deps", "test", "lint"}, ("deps",)),
        (("--fresh=tools", "--fresh=deps"), {"deps", "tools", "test", "lint"}, ("tools", "deps")),
        (("lint", "--fresh"), {"lint"}, ()),
    ],
)
def test_fresh_is_for_all_outputs_of_the_run_or_for_some(
    asked: list[Request], words: tuple[str, ...], jobs: set[str], fresh: tuple[str, ...]
) -> None:
    """A word after it is a job to run, as after any flag."""
    run(*words)

    assert [(jobs, fresh)] == [(set(request.specs), request.fresh) for request in asked]


@pytest.mark.parametrize("words", [("--fresh=lint",), ("--fresh=tools", "test"), ("--fresh=",)])
def test_fresh_for_what_has_no_output_here_is_refused(
    asked: list[Request], words: tuple[str, ...]
) -> None:
    """A job without one, one that does not run, and no name."""
    with pytest.raises(UsageError, match="has nothing to rebuild"):
        run(*words)

    assert [] == asked


@pytest.mark.parametrize("words", [(), ("--fail-fast",)])
def test_a_run_stops_at_the_first_failure_if_that_is_asked_for(
    asked: list[Request], words: tuple[str, ...]
) -> None:
    """The request says so."""
    run(*words)

    assert [bool(words)] == [request.fail_fast for request in asked]
