"""Wrong arguments: exit code 2, one line that says what is wrong, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.orchestrator.test_ending import ended, start


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("rnu", "there is no command 'rnu': did you mean `run`?"),
        ("zzz", "there is no command 'zzz'; the commands are: init, run, status"),
        ("image biuld", "there is no command 'biuld': did you mean `build`?"),
        ("run --ouptut json", "there is no option --ouptut: did you mean `--output`?"),
        (
            "run --output jsn",
            "--output: 'jsn' is not allowed: did you mean `json`?; allowed: human",
        ),
        ("run --jobs 0", "--jobs: 0 is not in the range 1<=x<=64"),
        ("image import x", "--alias is missing"),
        ("run tset", "pikaci.toml: there is no job 'tset': did you mean `test`?"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_word(tmp_path: Path, words: str, told: str) -> None:
    """In the form of all errors, and nothing is made."""
    (tmp_path / "pikaci.toml").write_text('schema = 1\n[jobs.test]\ncommand = "x"\n')
    root = tmp_path / "root"

    code, errors = ended(
        start(root, *words.split(), cwd=tmp_path, env={"PYTHONPATH": str(Path.cwd())})
    )

    assert 2 == code
    first, *rest = errors.splitlines()
    assert told in first
    assert first.startswith("pikaci: ")
    assert all(line.startswith("  -> ") for line in rest)
    assert not root.exists()


def test_no_words_are_answered_with_help(tmp_path: Path) -> None:
    """It is no mistake to be told in a line."""
    _, errors = ended(start(tmp_path))

    assert "Commands:" in errors
