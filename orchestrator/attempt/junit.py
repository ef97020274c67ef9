"""Reads test reports in the JUnit XML format, without trusting them.

The guest wrote them. So there is no document type and thus no entity; bytes, elements, names,
depth and time are limited. The format has no standard; what is read is what pytest, GoogleTest,
cargo-nextest, go-junit-report, jest-junit, CTest and Surefire have in common: `testcase` elements
with a name and a time, and in them `failure`, `error` or `skipped`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

from orchestrator.globs import GlobSet
from orchestrator.terminal import plain
from orchestrator.units import size
from states.testcases import NOT_PASSED, Case, CaseOutcome

MAX_FILE_BYTES = 16 << 20
MAX_BYTES = 64 << 20  # all reports of a job together
MAX_FILES = 1000
MAX_CASES = 100_000
MAX_ELEMENTS = 2_000_000
MAX_DEPTH = 64
MAX_TAG_BYTES = 1 << 20
MAX_TAGS = 1000  # different names of elements and attributes: expat keeps them all
MAX_PROLOG_BYTES = 4096
READ_SECS = 10.0
# Of a failure is kept, in characters; and of how many failures.
MAX_MESSAGE = 2048
MAX_MESSAGES = 200
MAX_NAME = 500
MAX_WARNINGS = 10
MAX_KEPT = 16 << 20  # characters of all cases together

_PIECE = 1 << 16
_ROOTS = ("testsuites", "testsuite")
_OUTCOMES = {
    "failure": CaseOutcome.FAILED,
    "error": CaseOutcome.ERROR,
    "skipped": CaseOutcome.SKIPPED,
}
_NOT_RUN = ("notrun", "disabled", "skipped")  # values of `status`, of GoogleTest and CTest
# Messages that say nothing; the text below has more.
_EMPTY = ("", "failed", "failure", "error")


class UnreadableReport(Exception):
    """A report cannot be read; the text says why."""


# Besides malformed XML: encodings that Python does not know, and the host's own disk.
_UNREADABLE = (expat.ExpatError, LookupError, ValueError, OSError)


@dataclass
class Reports:
    """The test cases of a job's reports, in order; `warnings` say what could not be read."""

    cases: list[Case] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    found: bool = False


def read_reports(directory: Path, paths: Sequence[str], globs: Sequence[str]) -> Reports:
    """Read the reports among the files in `directory`: those that match a glob.

    Without globs those are the `*.xml` whose root element is that of a report; what is wrong with
    another file is of no interest. Blocks, for at most `READ_SECS` and one piece of a file.
    """
    wanted = GlobSet(tuple(globs))
    budget = _Budget()
    reports = Reports()
    unread = 0
    for path in sorted(paths):
        if not (wanted.takes(path) if globs else path.endswith(".xml")):
            continue
        before = len(reports.cases)
        try:
            with (directory / path).open("rb") as file:
                _Reader(file, budget, reports).read()
            reports.found = True
        except _Full as full:
            reports.found = reports.found or budget.in_report
            reports.warnings.append(f"not all test reports were read: {full}")
            break
        except (UnreadableReport, *_UNREADABLE) as error:
            del reports.cases[before:]
            if globs or budget.in_report:
                unread += 1
                if unread <= MAX_WARNINGS:
                    reports.warnings.append(f"the test report {path} was not read: {_why(error)}")
    if unread > MAX_WARNINGS:
        reports.warnings.append(f"{unread - MAX_WARNINGS} more test reports were not read")
    return reports


def _why(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return plain((text or "")[:200])


class _Full(Exception):
    """A limit for all reports together was reached: what was read so far counts."""


@dataclass
class _Budget:
    """What is used up of the limits for all reports; `in_report`: the file is known to be one."""

    ends: float = field(default_factory=lambda: time.monotonic() + READ_SECS)
    size: int = 0
    files: int = 0
    elements: int = 0
    messages: int = 0
    kept: int = 0
    in_report: bool = False


class _Reader:
    """Reads one file."""

    def __init__(self, file: BinaryIO, budget: _Budget, reports: Reports) -> None:
        self._file = file
        self._budget = budget
        self._reports = reports
        self._depth = 0
        self._suites: list[tuple[int, str, str]] = []  # depth, name and file of each open suite
        self._case: dict[str, str] | None = None
        self._outcome = CaseOutcome.PASSED
        self._message = ""
        self._text: list[str] = []
        self._text_size = 0
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        if hasattr(parser, "SetReparseDeferralEnabled"):
            # Otherwise expat may hold back what it gets below byte by byte.
            parser.SetReparseDeferralEnabled(False)
        budget.in_report = False

    def read(self) -> None:
        """Read the whole file."""
        fed = 0
        self._use(0)
        # expat goes on to the end of a piece after a handler has raised, and a document type can
        # only come before the root element: so up to there, each piece is one byte.
        while not self._depth and not self._budget.in_report:
            if fed == MAX_PROLOG_BYTES:
                raise UnreadableReport(f"it has no element in its first {MAX_PROLOG_BYTES} bytes")
            byte = self._file.read(1)
            self._parser.Parse(byte, not byte)
            fed += len(byte)
        while piece := self._file.read(_PIECE):
            fed += len(piece)
            if fed > MAX_FILE_BYTES:
                raise UnreadableReport(f"it is larger than {size(MAX_FILE_BYTES)}")
            self._use(len(piece))
            self._parser.Parse(piece, False)
            if fed - self._parser.CurrentByteIndex > MAX_TAG_BYTES:
                raise UnreadableReport(f"it has a tag of more than {size(MAX_TAG_BYTES)}")
            if len(self._parser.intern) > MAX_TAGS:
                raise UnreadableReport(f"it has more than {MAX_TAGS} names of tags and attributes")
        self._parser.Parse(b"", True)

    def _use(self, read: int) -> None:
        budget = self._budget
        budget.size += read
        if budget.size > MAX_BYTES:
            raise _Full(f"they have more than {size(MAX_BYTES)} together")
        if time.monotonic() > budget.ends:
            raise _Full(f"reading them takes more than {READ_SECS:g} s")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self._begin(tag)
        self._budget.elements += 1
        if self._budget.elements > MAX_ELEMENTS:
            raise _Full(f"they have more than {MAX_ELEMENTS} elements")
        if self._depth > MAX_DEPTH:
            raise UnreadableReport(f"its elements are nested more than {MAX_DEPTH} deep")
        if tag == "testcase" and self._case is None:
            self._case, self._case_depth = attributes, self._depth
            run = attributes.get("status") not in _NOT_RUN
            self._outcome = CaseOutcome.PASSED if run else CaseOutcome.SKIPPED
            self._message = ""
        elif self._case is not None:
            if self._depth == self._case_depth + 1 and tag in _OUTCOMES:
                self._open_outcome(_OUTCOMES[tag], attributes)
        elif tag == "testsuite":
            name, file = attributes.get("name", ""), attributes.get("file", "")
            self._suites.append((self._depth, name, file))

    def _refuse_doctype(self, root: str, *_: Any) -> None:
        self._budget.in_report = root in _ROOTS
        raise UnreadableReport("it has a document type, which may define entities")

    def _begin(self, root: str) -> None:
        if root not in _ROOTS:
            raise UnreadableReport(f"it is not a JUnit report: its root element is {root!r}")
        self._budget.in_report = True
        self._budget.files += 1
        if self._budget.files > MAX_FILES:
            raise _Full(f"there are more than {MAX_FILES}")

    def _open_outcome(self, outcome: CaseOutcome, attributes: dict[str, str]) -> None:
        # A case may have failed, and then its cleanup: the first one counts.
        if self._outcome in NOT_PASSED:
            return
        self._outcome = outcome
        if outcome in NOT_PASSED and self._budget.messages < MAX_MESSAGES:
            self._budget.messages += 1
            self._message = attributes.get("message", "").strip()[:MAX_MESSAGE]
            if self._message.lower() in _EMPTY:
                self._text, self._text_size = [], 0
                self._parser.CharacterDataHandler = self._add_text

    def _add_text(self, text: str) -> None:
        if self._text_size < 2 * MAX_MESSAGE:
            self._text.append(text[: 2 * MAX_MESSAGE])
            self._text_size += len(text)

    def _end(self, tag: str) -> None:
        if self._case is not None:
            if self._depth == self._case_depth:
                self._close_case(self._case)
            elif self._depth == self._case_depth + 1 and self._parser.CharacterDataHandler:
                self._parser.CharacterDataHandler = None
                text = "".join(self._text).strip()[:MAX_MESSAGE]
                self._message = text or self._message
        elif self._suites and self._suites[-1][0] == self._depth:
            self._suites.pop()
        self._depth -= 1

    def _close_case(self, attributes: dict[str, str]) -> None:
        if len(self._reports.cases) == MAX_CASES:
            raise _Full(f"they have more than {MAX_CASES} test cases")
        _, suite, file = self._suites[-1] if self._suites else (0, "", "")
        self._case = None
        case = Case(
            name=attributes.get("name", "")[:MAX_NAME],
            suite=(attributes.get("classname") or suite)[:MAX_NAME],
            file=(attributes.get("file") or file)[:MAX_NAME],
            outcome=self._outcome,
            secs=_secs(attributes.get("time", "")),
            message=self._message,
        )
        self._budget.kept += len(case.name) + len(case.suite) + len(case.file) + len(case.message)
        if self._budget.kept > MAX_KEPT:
            raise _Full(f"names and messages of their tests have more than {size(MAX_KEPT)}")
        self._reports.cases.append(case)


def _secs(text: str) -> float:
    """A time as reports have it, `0.25` or `1,234.5`; 0 for anything else."""
    try:
        secs = float(text[:40].replace(",", ""))
    except ValueError:
        return 0.0
    return round(secs, 6) if math.isfinite(secs) and 0 < secs < 1e9 else 0.0
