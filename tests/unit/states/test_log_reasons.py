"""The reason of a failed command, found in logs of real tools, of which `tests.reasons` keeps many."""

from __future__ import annotations

import re
import re._parser as parser  # there is no public way to look into a pattern
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.log_end import read_log_end
from states.log_reasons import MAX_LINE, MAX_LINES, MAX_REASON, find_error, find_reason
from states.reason_rules import MAY_FIT, RULES, STACK, WENT_WELL, Kind
from tests.reasons.record import TOOLS, load

NAMES = sorted(path.stem for path in TOOLS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_the_reason_in_a_real_log(name: str) -> None:
    """What a person would name; none where the tool does not say it, or did not fail."""
    log = read_log_end(TOOLS / f"{name}.log", lines=MAX_LINES)

    assert load(name)["reason"] == find_reason(log.lines)
    line = find_error(log.lines)
    assert bool(load(name)["reason"]) == (line is not None)
    assert line is None or log.lines[line].strip()
    before = ["nothing of interest"] * MAX_LINES
    assert line is None or line + MAX_LINES == find_error([*before, *log.lines])


def test_every_rule_has_a_log() -> None:
    """None is there that no real tool's log has tried."""
    lines = [
        line for path in TOOLS.glob("*.log") for line in read_log_end(path, lines=MAX_LINES).lines
    ]
    unused = [
        rule.pattern.pattern
        for rule in RULES
        if not any(rule.pattern.match(line) for line in lines)
    ]

    assert [] == unused


NOISE = [f"building part {number}" for number in range(500)]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], ""),
        (["", "  "], ""),
        (["cp: cannot stat 'a': No such file or directory", *NOISE[:5]], ""),
        (["cp: cannot stat 'a': No such file or directory", *NOISE[:4]], "cp: cannot stat"),
        (["tar: a: Wrote only 512 of 10240 bytes", "tar: Exiting with failure"], "tar: a: Wrote"),
        (["connect: Network is unreachable"], "connect: Network is unreachable"),
        (["nc: connect: Connection refused", "giving up"], "nc: connect: Connection refused"),
        (["db: Connection refused", "db: ok", "only 71 % of the code is tested"], ""),
        (["note: Connection refused"], ""),
        (["sh: 1: cannot create a: Read-only file system"], "sh: 1: cannot create a: Read-only"),
        (["a.c:1:2: error: no", *NOISE[:41]], ""),
        (["a.c:1:2: error: no", "make: *** [a.o] Error 1", *NOISE[:150]], "a.c:1:2: error: no"),
        (["a.c:1:2: error: no", "make: *** [a.o] Error 1", *NOISE[:201]], ""),
        (["fatal: no tag", "==== 5 passed in 0.1s ====", ""], ""),
        (["==== 5 passed in 0.1s ====", "fatal: no tag"], "fatal: no tag"),
        (["==== 1 failed, 5 passed in 0.1s ====", "fatal: no tag"], "fatal: no tag"),
    ],
)
def test_what_is_far_from_the_end_is_no_reason(lines: list[str], reason: str) -> None:
    """The command went on after it; unless it was only the rest of a build that had failed."""
    found = find_reason(lines)

    assert found.startswith(reason) and bool(found) == bool(reason)


def test_of_two_tools_the_last_one_failed() -> None:
    """The command went on after the first. Of the errors of one tool, the first is the cause."""
    first = ["FAILED a.py::test - no"]
    second = ["b.c:1:2: error: one", "b.c:3:4: error: two", "b.c:3:4: error: two"]

    assert "b.c:1:2: error: one, and 1 more error" == find_reason(
        ["=== short test summary info ===", *first, *second]
    )


@pytest.mark.parametrize(
    ("lines", "counted"),
    [
        (["--- FAIL: A", "--- FAIL: B"], "and 1 more test"),
        (["--- FAIL: A", "--- FAIL: B", "--- FAIL: C"], "and 2 more tests"),
        (["E   assert 1 == 2", "E   assert 1 == 3"], "and 1 more line"),
        (["would reformat a.py", "would reformat b.py", "would reformat c.py"], "and 2 more files"),
    ],
)
def test_what_there_is_more_of_has_a_name(lines: list[str], counted: str) -> None:
    assert f"{lines[0].removeprefix('E   ')}, {counted}" == find_reason(lines)


def test_a_list_counts_from_its_last_heading() -> None:
    """A second run of the tests is the one that failed."""
    heading = "=== short test summary info ==="
    lines = [heading, "FAILED a.py::one - no", heading, "FAILED a.py::two - no"]

    assert "FAILED a.py::two - no" == find_reason(lines)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["not ok 1 - a", "not ok 2 - b", "  error: 'no'"], "not ok 1 - a, and 1 more test"),
        (["not ok 1 - a", *NOISE[:30], "  error: 'no'"], "a: 'no'"),
        (["not ok 1 - a", "  error: 'test failed'"], "not ok 1 - a"),
        (["---- a stdout ----", "Error: no", "", "failures:", "    a"], "a: Error: no"),
        (["---- a stdout ----", "Error: no", "", "---- b stdout ----"], "a: Error: no, and 1 more test"),
        (["# Failed test 'a'", "# at t line 1.", *["#    x"] * 9], "Failed test 'a': at t line 1. x; x; x"),
    ],
)  # fmt: skip
def test_a_message_is_that_of_its_test(lines: list[str], reason: str) -> None:
    assert reason == find_reason(lines)


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=60)
# Parts of lines that the rules look for, so that many of them fit.
PARTS = st.sampled_from(
    "Traceback (most recent call last):|FAILED |a.py::b - |error: |E   | |    |make: *** |x.c:1:2: "
    "|npm error code |npm error |=== short test summary info |● |  1 failing|  2) |Error: |cmd: "
    "|x: line 1: |: not found|not ok 1 | --> a|---- a stdout ----|panicked at |  error: |# Failed test"
    "|#   at ".split("|")
)
LINES = st.lists(st.lists(PARTS | TEXT, max_size=6).map("".join), max_size=40)


COUNTED = re.compile(r"\d+ more \w+")


@given(LINES)
def test_a_reason_is_a_line_of_the_log(lines: list[str]) -> None:
    """Not longer than a headline, on one line, and made of nothing but words of the log."""
    reason = find_reason(lines)
    words = {word for line in lines for word in line.split()}
    said = reason.removesuffix("...").rpartition(", and ")
    rest = said[0] if said[1] and COUNTED.fullmatch(said[2]) else reason.removesuffix("...")

    assert len(reason) <= MAX_REASON
    assert reason == " ".join(reason.split())
    assert all(any(word.rstrip(":;") in known for known in words) for word in rest.split())


@settings(max_examples=10)
@given(LINES, st.integers(0, 3))
def test_only_the_end_of_a_log_counts(lines: list[str], times: int) -> None:
    """What came before has no influence."""
    end = (lines + NOISE * 4)[:MAX_LINES]

    assert find_reason(end) == find_reason(
        ["error: before"] * times * len(NOISE) + [""] * (MAX_LINES - len(end)) + end
    )


PATTERNS = [
    pattern
    for rule in RULES
    for pattern in (rule.pattern, rule.then, rule.says, rule.more, rule.opens)
    if pattern is not None
] + [STACK, WENT_WELL, MAY_FIT]


REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


def cost(parsed: Any) -> tuple[int, int]:
    """How many repetitions without a bound follow each other, and how deep repetitions nest."""
    unbounded = deepest = aside = 0
    for op, value in parsed:
        match str(op):
            case name if name in REPEATS:
                inner = cost(value[2])
                unbounded += inner[0] + (value[1] > 1000)
                deepest = max(deepest, inner[1] + (value[1] > 1))
            case "BRANCH":
                costs = [cost(branch) for branch in value[1]]
                unbounded += max(one[0] for one in costs)
                deepest = max(deepest, *(one[1] for one in costs))
            case "SUBPATTERN" | "ASSERT" | "ASSERT_NOT" as name:
                inner = cost(value[-1])
                deepest = max(deepest, inner[1])
                if name == "SUBPATTERN":
                    unbounded += inner[0]
                else:  # looked at once in each place, and never again
                    aside = max(aside, inner[0])
    return max(unbounded, aside), deepest


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.pattern[:40])
def test_a_pattern_is_cheap_for_every_line(pattern: re.Pattern[str]) -> None:
    """It repeats without a bound at most once, and no repetition is inside another.

    It must match at the line's start. So the work for a line is at most its length times a number
    that the pattern sets.
    """
    assert max(cost(parser.parse(pattern.pattern))) <= 1


@pytest.mark.parametrize("pattern", ["(a+)+", "(?:a|b*)*c", "a*b*", "a*(?=b)c.*"])
def test_a_dear_pattern_is_noticed(pattern: str) -> None:
    assert max(cost(parser.parse(pattern))) > 1


@pytest.mark.parametrize(
    "part", ["a", " ", "-", "a:", "1", ":1", "x.", "E ", "(", "a.b:1:1: ", "\t#"]
)
def test_a_hostile_log_ends(part: str) -> None:
    """A backtracking search takes these lines for longer than anybody waits."""
    for end in ("", "!", " - ", "Error", ": x"):
        find_reason([part * MAX_LINE + end] * 50)
    find_reason(["Traceback (most recent call last):", f" {part}"] * MAX_LINES)


def test_the_kinds_are_in_their_order() -> None:
    assert sorted(Kind) == list(Kind)
