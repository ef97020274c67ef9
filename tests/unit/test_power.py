"""What is called wrong after a power cut; the machine of the script is a stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.power.after import Entry, problems, verdicts, whole_lines

ROOT = Path(__file__).parents[2]


def entry(job: str, seq: int, kind: str) -> Entry:
    return {"job": job, "seq": seq, "type": kind}


A = [entry("a", 1, "submitted"), entry("a", 2, "running"), entry("a", 3, "result_collected")]
B = [entry("b", 1, "submitted"), entry("b", 2, "failed")]


def test_a_torn_line_was_not_heard() -> None:
    """Nor what is no entry."""
    lines = b"".join(json.dumps(one).encode() + b"\n" for one in A)

    assert A == whole_lines(lines)
    assert A == whole_lines(lines + b'{"job": "b", "se')
    assert [] == whole_lines(b"")


@pytest.mark.parametrize(
    ("heard", "journal", "left", "wrong"),
    [
        (A[:2], [*A, *B], [], []),
        ([], [], [], []),
        ([*A, *B[:1]], A, [], ["an entry is lost", "of 2 jobs, 1 are"]),
        ([{**A[0], "run": "x"}], [*A, *B], [], ["an entry is lost"]),
        (A[:1], [*A[:2], *B], [], ["a has 0 ends"]),
        (A[:1], [*A, entry("a", 4, "cancelled"), *B], [], ["a has 2 ends"]),
        (A[:1], [*A, *B], ["pikaci-1"], ["an instance is left: pikaci-1"]),
    ],
)
def test_what_is_wrong(
    heard: list[Entry], journal: list[Entry], left: list[str], wrong: list[str]
) -> None:
    """Each of what must hold, when it does not."""
    found = problems(heard, journal, left, 2)

    assert len(wrong) == len(found), found
    assert all(said.startswith(word) for said, word in zip(found, wrong, strict=True))


def test_the_verdicts_are_counted() -> None:
    """Of a journal that has some."""
    assert "1 result_collected, 1 failed" == verdicts([*A, *B])
    assert "no job" == verdicts([])


# A machine whose power is always on, and whose pikaci had two jobs.
STAND_IN = """\
#!{python}
import json, sys
A, B = {a!r}, {b!r}
verb, *words = sys.argv[1:]
said = " ".join(words)
show = lambda entries: [print(json.dumps(one), flush=True) for one in entries]
if "run --output" in said: show(A[:2] + {torn})
if "trace export" in said: print("{{}}"); show(A + B)
if "list --output" in said: print('[{{"run": "r"}}]')
"""


@pytest.mark.parametrize(("torn", "code"), [("[]", 0), ("[{'job': 'c', 'type': 'running'}]", 1)])
def test_a_round(tmp_path: Path, torn: str, code: int) -> None:
    """Is a line, and what did not hold one each."""
    machine = tmp_path / "machine"
    values: dict[str, Any] = {"python": sys.executable, "a": A, "b": B, "torn": torn}
    machine.write_text(STAND_IN.format(**values))
    machine.chmod(0o755)
    command = [sys.executable, "-m", "tests.power.cuts", "--machine", str(machine), "--times=1"]
    done = subprocess.run(
        [*command, "--jobs=2", "--within=0"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert code == done.returncode, done.stderr
    assert ("an entry is lost" in done.stdout) == bool(code)
    assert "5 found  1 result_collected, 1 failed" in done.stdout
