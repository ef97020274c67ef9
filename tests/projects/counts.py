"""How many tests passed, by the words of the tool that ran them."""

from __future__ import annotations

import re
from collections import Counter

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PYTEST = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [0-9.]+s.*$", re.MULTILINE)
_TAP = re.compile(r"^# (pass|fail|skip|todo) +(\d+)$", re.MULTILINE)
_CTEST = re.compile(r"^\d+% tests passed, (\d+) tests failed out of (\d+)$", re.MULTILINE)
_AUTOMAKE = re.compile(r"^# (PASS|FAIL|SKIP|XFAIL|XPASS|ERROR): +(\d+)$", re.MULTILINE)
# tinyxml2's own.
_XMLTEST = re.compile(r"^Pass (\d+), Fail (\d+)$", re.MULTILINE)
_CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", re.MULTILINE)
# pytest's words that say nothing of a test's result.
_NO_RESULTS = {"warning", "warnings", "deselected"}
_ONE_WORD = {"pass": "passed", "fail": "failed", "skip": "skipped", "ignored": "skipped",
             "error": "errors"}  # fmt: skip


def count(tool: str, output: str) -> dict[str, int]:
    """The results by kind, those of all summaries in the output added; kinds of none left out.

    `ValueError` if there is no summary.
    """
    found: Counter[str] = Counter()
    text = _COLOURS.sub("", output).replace("\r\n", "\n")
    summaries = 0
    for kind, number in _results(tool, text):
        summaries += 1
        kind = kind.lower()
        found[_ONE_WORD.get(kind, kind)] += number
    if not summaries:
        raise ValueError(f"no summary of {tool} in: {output[-2000:]}")
    return {kind: number for kind, number in sorted(found.items()) if number}


def _results(tool: str, text: str) -> list[tuple[str, int]]:
    if tool == "pytest":
        words = [part.split() for one in _PYTEST.findall(text) for part in one.split(", ")]
        return [(kind, int(number)) for number, kind in words if kind not in _NO_RESULTS]
    if tool == "ctest":
        return [
            result
            for failed, whole in _CTEST.findall(text)
            for result in (("passed", int(whole) - int(failed)), ("failed", int(failed)))
        ]
    if tool == "cargo":
        return [
            (kind, int(number))
            for numbers in _CARGO.findall(text)
            for kind, number in zip(("passed", "failed", "ignored"), numbers, strict=True)
        ]
    if tool == "xmltest":
        return [
            (kind, int(number))
            for numbers in _XMLTEST.findall(text)
            for kind, number in zip(("passed", "failed"), numbers, strict=True)
        ]
    pattern = {"tap": _TAP, "automake": _AUTOMAKE}[tool]
    return [(kind, int(number)) for kind, number in pattern.findall(text)]
