"""The text that init writes: a job file, whatever the project's files are called and contain."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.init import Findings, Job, Tree, detect, write
from orchestrator.jobfile import load
from tests.unit.orchestrator.init import trees

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.one_of(TEXT, st.booleans(), st.lists(TEXT), st.dictionaries(TEXT, TEXT))


@pytest.mark.parametrize("name", trees.ALL)
def test_what_is_written_is_what_was_found(name: str) -> None:
    """Each job with its keys, and a comment above it."""
    found = detect(Tree(trees.ALL[name]))

    text = write(found)

    document = tomllib.loads(text)
    assert 1 == document["schema"]
    assert {job.name: dict(job.keys) for job in found.jobs} == document["jobs"]
    for job in found.jobs:
        before = text.partition(f"[jobs.{job.name}]")[0]
        assert before.rstrip().rpartition("\n")[2].startswith("# ")


@pytest.mark.parametrize("name", trees.ALL)
def test_what_is_written_is_a_job_file(name: str, tmp_path: Path) -> None:
    """pikaci reads it without a complaint."""
    found = detect(Tree(trees.ALL[name]))
    path = tmp_path / "pikaci.toml"
    path.write_text(write(found))

    assert [job.name for job in found.jobs] == list(load(path).jobs)


@given(st.dictionaries(TEXT, VALUES), TEXT, st.lists(TEXT), TEXT)
def test_nothing_gets_out_of_its_value(
    keys: dict[str, object], comment: str, notes: list[str], kind: str
) -> None:
    """A text with quotes, line breaks or anything else stays that text, also in a comment."""
    job = Job("a", comment, keys)  # type: ignore[arg-type]

    document = tomllib.loads(write(Findings(kind, (job,), tuple(notes))))

    assert {"schema": 1, "jobs": {"a": keys}} == document


def test_a_hostile_name_is_only_a_name() -> None:
    """The file is read on the host: a project must not put a mount into it."""
    name = "x'\n'''\n[jobs.evil]\nmounts = [{ source = '/', path = '/host' }]\n#"
    files = {"pyproject.toml": f"[dependency-groups]\ntest = []\n[project]\nname='a'\n"
             f"[build-system]\nrequires = [{name!r}]\n", "tests/test_a.py": ""}  # fmt: skip

    document = tomllib.loads(write(detect(Tree(files))))

    assert {"deps", "test"} == set(document["jobs"])
    assert ["/venv"] == [mount["path"] for mount in document["jobs"]["test"]["mounts"]]
