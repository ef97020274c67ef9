"""`pikaci run` in a real pseudo-terminal, whose screen is read back. Incus is the fake."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.terminal.captures import job_file
from tests.terminal.screen import Terminal

Start = Callable[..., Terminal]
WAIT = "print started; sleep 60"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `pikaci ARGS` in a workspace with this job file, in a terminal of this size."""
    started: list[Terminal] = []

    def begin(jobs: str, *args: str, columns: int = 80, lines: int = 24, **env: str) -> Terminal:
        workspace = tmp_path / "workspace"
        workspace.mkdir(exist_ok=True)
        (workspace / "pikaci.toml").write_text(jobs)
        terminal = Terminal(
            args,
            columns=columns,
            lines=lines,
            cwd=workspace,
            env={"PIKACI_STATE_ROOT": str(tmp_path / "root"), **env},
        )
        started.append(terminal)
        return terminal

    yield begin
    for terminal in started:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()


def jobs(**commands: str) -> str:
    return "schema = 1\n" + "".join(
        f'[jobs."{name}"]\ncommand = "{command}"\n' for name, command in commands.items()
    )


def on_screen(*words: str) -> Callable[[Terminal], bool]:
    """Whether one line has all of the words."""
    return lambda terminal: any(all(word in line for word in words) for line in terminal.shown)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("count", [1, 30])
def test_every_job_is_one_line_and_the_board_is_gone(
    start: Start, columns: int, count: int
) -> None:
    """At the end: a line for each job, the reason of each failure, the counts, what to type."""
    terminal = start(job_file(count, 0.01), "run", columns=columns)

    code = terminal.wait()

    lines = terminal.all_lines
    failed = count // 10
    assert (1 if failed else 0) == code
    marks = [line[0] for line in lines if re.match(r"[\u2713\u2717] \S", line)]
    assert count - failed == marks.count("\u2713")
    assert failed == marks.count("\u2717")
    assert failed == sum(line == "    | assert 1 == 2" for line in lines)
    totals = f"{count - failed} passed" + (f", {failed} failed" if failed else "")
    assert any(re.fullmatch(rf"{totals} in [\d.]+ m?s", line) for line in lines)
    assert not any(re.match(r"\d+/\d+ passed", line) for line in lines)
    assert ("-> pikaci rerun --failed" == lines[-1]) == bool(failed)
    assert all(cell_len(line) <= columns for line in lines)


@pytest.mark.parametrize("columns", [40, 80])
def test_running_jobs_stay_below_with_their_last_lines(start: Start, columns: int) -> None:
    """Name, what is being done, a clock; the last line of output where there is room."""
    terminal = start(
        jobs(lint="print checking; sleep 60", test="print 1 of 9; sleep 60"), "run", columns=columns
    )

    terminal.read_until(on_screen("2 running"))
    terminal.read_until(lambda now: sum(" running " in line for line in now.shown) == 2)
    if columns == 80:
        terminal.read_until(on_screen("lint", "running", "0:0", "checking"))
        terminal.read_until(on_screen("test", "running", "0:0", "1 of 9"))

    assert re.fullmatch(r"0/2 passed, 2 running, 0:\d\d", terminal.shown[-1])


def test_ctrl_c_says_what_it_does(start: Start) -> None:
    """Once: the jobs are stopped, and how they can be killed. The end says what was cancelled."""
    terminal = start(jobs(a=WAIT, b=WAIT), "run")
    terminal.read_until(on_screen("2 running"))

    terminal.interrupt()
    terminal.read_until(on_screen("Stopping 2 jobs. Press Ctrl-C again to kill them now."))

    assert 130 == terminal.wait()
    assert any(re.match(r"2 cancelled in .*, interrupted", line) for line in terminal.shown)
    assert ["  a  cancelled: interrupted", "  b  cancelled: interrupted"] == terminal.shown[-4:-2]


def test_the_board_follows_the_size_of_the_terminal(start: Start) -> None:
    """After a resize there is one board, as wide as the terminal is now."""
    terminal = start(jobs(linters=WAIT, unit_tests=WAIT), "run", columns=80)
    terminal.read_until(on_screen("linters", "running", "started"))

    terminal.resize(40, 24)
    terminal.read_until(lambda now: not any("started" in line for line in now.shown))
    terminal.resize(120, 24)
    terminal.read_until(on_screen("linters", "running", "started"))

    assert 1 == sum("passed" in line for line in terminal.shown)
    assert 2 == sum(" running " in line for line in terminal.shown)


def test_more_jobs_than_lines(start: Start) -> None:
    """What does not fit is counted."""
    many = {f"job{number}": WAIT for number in range(12)}
    terminal = start(jobs(**many), "run", "--jobs", "12", lines=8)

    terminal.read_until(on_screen("and 7 more running"))

    assert len(terminal.shown) <= 8


def test_verbose_shows_all_output_above_the_board(start: Start) -> None:
    """Each line behind its job's name; what is still running stays below."""
    terminal = start(
        jobs(test="print one; print two; sleep 60", lint="print looking; sleep 60"), "run", "-v"
    )

    terminal.read_until(on_screen("test | two"))
    terminal.read_until(on_screen("lint | looking"))
    terminal.read_until(lambda now: "2 running" in now.shown[-1])

    assert any(line == "test | one" for line in terminal.shown)


def test_no_colour_and_forced_colour(start: Start) -> None:
    """`NO_COLOR` leaves none; without it there are some."""
    plain = start(jobs(a="print \\\\x1b[31mred; exit 1"), "run", NO_COLOR="1")
    assert 1 == plain.wait()
    coloured = start(jobs(a="print \\\\x1b[31mred; exit 1"), "run")
    assert 1 == coloured.wait()

    assert not re.search(rb"\x1b\[[0-9;]*m", plain.written)
    assert b"\x1b[31mred" in coloured.written
    assert b"\x1b[31m\xe2\x9c\x97" in coloured.written


def test_hostile_output_reaches_the_terminal_as_text(start: Start) -> None:
    """On the board, above it with -v, and at a failure: titles, clears and moves are left out."""
    hostile = r"print \\x1b]0,owned\\x07\\x1b[2J\\x1b[Hshown\\x9b2J; sleep 0.3; exit 1"
    for args in (("run",), ("run", "-v"), ("run", "-q")):
        terminal = start(jobs(evil=hostile), *args)
        assert 1 == terminal.wait()
        assert b"owned" not in terminal.written
        assert b"\x1b[2J" not in terminal.written
        assert b"\x1b[H" not in terminal.written
        assert b"\xc2\x9b" not in terminal.written
        assert any("shown" in line for line in terminal.all_lines)


def test_one_command_prints_what_it_prints(start: Start) -> None:
    """On a terminal too: its colours stay, what steers the terminal does not, nothing is added."""
    steps = r"print one\ttwo; print \x1b[32mgreen\x1b[0m\x1b[2J; exit 0"

    terminal = start("", "run", "--", steps)

    assert 0 == terminal.wait()
    assert ["one     two", "green"] == terminal.shown
    assert b"\x1b[32mgreen" in terminal.written
    assert b"\x1b[2J" not in terminal.written


def test_a_progress_bar_is_one_line(start: Start) -> None:
    """Its last state, on the board and after a name."""
    bar = "print 10%\\\\r50%\\\\r99% done; sleep 60"
    terminal = start(jobs(build=bar), "run", "-v")

    terminal.read_until(on_screen("build | 99% done"))
    terminal.read_until(on_screen("build", "running", "99% done"))


def test_an_error_takes_the_place_of_the_board(start: Start, tmp_path: Path) -> None:
    """Here the journal is lost while a job runs: what is no longer so does not stay on the screen."""
    terminal = start(jobs(lint="print started; sleep 1"), "run")
    terminal.read_until(on_screen("lint", "running"))
    with sqlite3.connect(tmp_path / "root" / "journal.sqlite3") as journal:
        journal.execute("DROP TABLE entries")

    code = terminal.wait()

    assert 4 == code
    assert any(line.startswith("pikaci: ") for line in terminal.shown)
    assert not any(re.search(r" running |/1 passed", line) for line in terminal.shown)


OUTPUTS = """
schema = 1
[jobs.deps]
command = "sleep 1; write /artifacts/out/lib"
output = "/artifacts/out"
sources = ["wanted"]
workspace_build = "."
[jobs.test]
command = "print tested"
workspace_deps = { job = "deps" }
[jobs.bad]
command = "sleep 1; exit 3"
[jobs.after]
command = "print never"
needs = ["bad"]
[jobs.last]
command = "print never"
needs = ["after"]
"""


@pytest.mark.parametrize("columns", [80, 200])
def test_outputs_and_what_is_skipped(start: Start, tmp_path: Path, columns: int) -> None:
    """What waits for jobs, what was reused and from where, why it was built, why it was skipped."""
    (tmp_path / "workspace").mkdir()
    wanted = tmp_path / "workspace" / "wanted"
    wanted.write_text("1")
    first = start(OUTPUTS, "run", columns=columns)
    first.read_until(on_screen("2 running, 3 waiting for other jobs"))
    assert 1 == first.wait()
    again = start(OUTPUTS, "run", columns=columns)
    again.wait()
    wanted.write_text("2")
    built = start(OUTPUTS, "run", "deps", "test", columns=columns)
    built.read_until(on_screen("1 running, 1 waiting for deps"))
    assert 0 == built.wait()

    lines = [re.sub(r" {2,}", "  ", line) for line in again.all_lines]
    beyond = ", not in its key: workspace_build" if columns == 200 else ""
    run = first.all_lines[0].split()[1]
    reused = next(line for line in lines if line.startswith("\u2713 deps"))
    assert reused.startswith(f"\u2713 deps  reused, made by {run} ")
    assert reused.endswith(beyond)
    assert "- after  skipped: needs bad, which failed" in lines
    assert "- last  skipped: needs after, which was skipped" in lines
    assert any(re.match(r"1 passed, 1 reused, 1 failed, 2 skipped in ", line) for line in lines)
    assert 1 == sum("pikaci logs" in line for line in lines)
    told = next(line for line in built.all_lines if line.startswith("\u2713 deps"))
    assert re.search(rf"\d s  built: wanted changed{beyond}", told)


def test_outputs_in_lines(start: Start) -> None:
    """The same without a board, in one line for each job, whatever its width."""
    start(OUTPUTS, "run", "-q").wait()
    lines = start(OUTPUTS, "run", "-q", NO_COLOR="1", columns=200)
    lines.wait()

    shown = lines.all_lines
    assert any(
        re.match(r". deps +reused, made by \w+ (just now|\d+ s ago), not in", x) for x in shown
    )
    assert any(line.endswith("skipped: needs bad, which failed") for line in shown)
