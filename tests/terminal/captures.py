"""The board at every size, in the middle of a run and at its end, as text.

python -m tests.terminal.captures [COLUMNS JOBS]
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.terminal.screen import Terminal

LINES = 24
WIDTHS, COUNTS = (40, 80, 200), (1, 3, 30, 300)
WORDS = ("lint", "unit-tests-python-3.12", "integration-with-postgresql", "docs", "\u6e2c\u8a66")


def job_file(jobs: int, secs: float) -> str:
    """This many jobs; one in ten fails, and prints why."""
    text = "schema = 1\n"
    for number in range(jobs):
        name = WORDS[number % 4] if jobs <= 4 else f"{WORDS[number % 4]}-{number}"
        end = "print assert 1 == 2; exit 1" if number % 10 == 1 else "print done"
        steps = f"print collecting tests for part {number}; sleep {secs}; print ran {number}; sleep {secs}; {end}"
        text += f'[jobs."{name}"]\ncommand = "{steps}"\n'
    return text


def capture(columns: int, jobs: int, *, lines: int = LINES) -> tuple[list[str], list[str]]:
    """What is on the screen when about half of the jobs have ended, and at the end."""
    with tempfile.TemporaryDirectory(prefix="pikaci-captures-") as name:
        workspace = Path(name)
        secs = 0.6 if jobs < 10 else 0.15 if jobs < 100 else 0.03
        (workspace / "pikaci.toml").write_text(job_file(jobs, secs))
        terminal = Terminal(
            ["run", "--jobs", "4"],
            columns=columns,
            lines=lines,
            env={
                "PIKACI_STATE_ROOT": f"{name}-root",
                "PIKACI_WORKSPACE": name,
            },
            cwd=workspace,
        )
        terminal.read_until(lambda now: _half_way(now.shown, jobs))
        middle = terminal.shown
        terminal.wait()
        return middle, terminal.shown


def _half_way(shown: list[str], jobs: int) -> bool:
    """Whether half of the jobs have ended; for few jobs, whether all of them print."""
    if jobs < 10:
        return (
            sum(" running " in line and ("part" in line or len(line) < 40) for line in shown)
            >= jobs
        )
    found = re.match(r"(\d+)/\d+ passed(?:, (\d+) failed)?", shown[-1] if shown else "")
    return bool(found) and int(found[1]) + int(found[2] or 0) >= jobs // 2


def main() -> None:
    """Print them."""
    widths, counts = WIDTHS, COUNTS
    if len(sys.argv) == 3:
        widths, counts = (int(sys.argv[1]),), (int(sys.argv[2]),)
    for columns in widths:
        for jobs in counts:
            for when, shown in zip(("half-way", "at the end"), capture(columns, jobs), strict=True):
                print(f"--- {columns} columns, {jobs} jobs, {when}")
                print("\n".join(shown))


if __name__ == "__main__":
    main()
