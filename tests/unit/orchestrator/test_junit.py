"""Test reports of the usual test runners, and of a hostile guest."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.attempt import junit
from orchestrator.attempt.junit import Reports, read_reports
from orchestrator.terminal import plain
from states.testcases import Case, CaseOutcome, case_report

PASSED, FAILED, ERROR, SKIPPED = CaseOutcome


def read(place: Path, globs: Sequence[str] = (), **files: str | bytes) -> Reports:
    """What is read of these files, each `NAME.xml`."""
    for name, text in files.items():
        (place / f"{name}.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_reports(place, [f"{name}.xml" for name in files], globs)


def outcomes(reports: Reports) -> list[tuple[str, str, CaseOutcome]]:
    return [(case.suite, case.name, case.outcome) for case in reports.cases]


PYTEST = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" skipped="1"
 tests="4" time="0.31" timestamp="2026-01-02T03:04:05" hostname="guest">
<testcase classname="tests.test_a" name="test_one[1-a]" time="0.250" />
<testcase classname="tests.test_a" name="test_two" time="0.010"><failure
 message="AssertionError: assert 1 == 2&#10; +  where 1 = f()">def test_two():
&gt;       assert f() == 2
E       assert 1 == 2</failure></testcase>
<testcase classname="tests.test_a.TestC" name="test_three" time="0.001"><skipped
 type="pytest.skip" message="not here">here.py:3: not here</skipped></testcase>
<testcase classname="tests.test_b" name="test_four" time="0.002"><error
 message="failed on setup with &quot;KeyError: 'x'&quot;">x</error></testcase>
</testsuite></testsuites>"""


def test_pytest(tmp_path: Path) -> None:
    """Passed, failed, skipped, and an error of a fixture; with class, time and message."""
    reports = read(tmp_path, junit=PYTEST)

    assert [] == reports.warnings
    assert [
        Case(name="test_one[1-a]", suite="tests.test_a", outcome=PASSED, secs=0.25),
        Case(
            name="test_two",
            suite="tests.test_a",
            outcome=FAILED,
            secs=0.01,
            message="AssertionError: assert 1 == 2\n +  where 1 = f()",
        ),
        Case(name="test_three", suite="tests.test_a.TestC", outcome=SKIPPED, secs=0.001),
        Case(
            name="test_four",
            suite="tests.test_b",
            outcome=ERROR,
            secs=0.002,
            message="failed on setup with \"KeyError: 'x'\"",
        ),
    ] == reports.cases


def test_googletest(tmp_path: Path) -> None:
    """A case that was not run is skipped; the file is the case's."""
    reports = read(
        tmp_path,
        gtest="""<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="3" failures="1" disabled="1" errors="0" time="0.003" name="AllTests">
  <testsuite name="Sum" tests="3" failures="1" disabled="1" skipped="0" errors="0" time="0.001">
    <testcase name="Adds" file="/src/sum_test.cc" line="5" status="run" result="completed"
      time="0.001" timestamp="2026-01-02T03:04:05.678" classname="Sum" />
    <testcase name="Wraps" file="/src/sum_test.cc" line="9" status="run" result="completed"
      time="0." classname="Sum">
      <failure message="/src/sum_test.cc:10&#x0A;Expected equality" type=""><![CDATA[/src/sum_test.cc:10
Expected equality]]></failure>
    </testcase>
    <testcase name="DISABLED_Slow" status="notrun" result="suppressed" time="0." classname="Sum" />
  </testsuite>
</testsuites>""",
    )

    assert [
        ("Sum", "Adds", PASSED),
        ("Sum", "Wraps", FAILED),
        ("Sum", "DISABLED_Slow", SKIPPED),
    ] == (outcomes(reports))
    assert ["/src/sum_test.cc", "/src/sum_test.cc", ""] == [case.file for case in reports.cases]
    assert "/src/sum_test.cc:10\nExpected equality" == reports.cases[1].message


def test_nextest(tmp_path: Path) -> None:
    """A test that passed when it was retried has passed; a rerun of a failure is not a second."""
    reports = read(
        tmp_path,
        junit="""<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" uuid="0" time="1.5">
  <testsuite name="crate::bin/tool" tests="3" disabled="0" errors="0" failures="1">
    <testcase name="tests::flaky" classname="crate::bin/tool" time="0.5">
      <flakyFailure message="panicked" type="test failure">once</flakyFailure>
      <system-out>running 1 test</system-out>
    </testcase>
    <testcase name="tests::fails" classname="crate::bin/tool" time="0.9">
      <failure message="thread 'tests::fails' panicked at src/lib.rs:7:9" type="test failure">text</failure>
      <rerunFailure message="again" type="test failure">text</rerunFailure>
    </testcase>
    <testcase name="tests::fine" time="0.1"/>
  </testsuite>
</testsuites>""",
    )

    suite = "crate::bin/tool"
    assert [
        (suite, "tests::flaky", PASSED),
        (suite, "tests::fails", FAILED),
        (suite, "tests::fine", PASSED),
    ] == outcomes(reports)
    assert "thread 'tests::fails' panicked at src/lib.rs:7:9" == reports.cases[1].message


def test_go(tmp_path: Path) -> None:
    """Its messages say only `Failed`: the text says more."""
    reports = read(
        tmp_path,
        report="""<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="2" failures="1">
	<testsuite name="example.org/sum" tests="2" failures="1" errors="0" time="0.012">
		<properties><property name="go.version" value="go1.22"></property></properties>
		<testcase name="TestAdd" classname="example.org/sum" time="0.010">
			<failure message="Failed" type=""><![CDATA[    sum_test.go:8: got 3]]></failure>
		</testcase>
		<testcase name="TestSub" classname="example.org/sum" time="0.000">
			<skipped message="sum_test.go:12: not yet"></skipped></testcase>
	</testsuite>
</testsuites>""",
    )

    assert [FAILED, SKIPPED] == [case.outcome for case in reports.cases]
    assert "sum_test.go:8: got 3" == reports.cases[0].message


def test_jest(tmp_path: Path) -> None:
    """A failure without a message has its text; the file is the suite's."""
    reports = read(
        tmp_path,
        junit="""<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="jest tests" tests="2" failures="1" errors="0" time="1.1">
  <testsuite name="sum" file="src/sum.test.js" errors="0" failures="1" skipped="0" time="0.9" tests="2">
    <testcase classname="sum adds" name="sum adds" time="0.004">
      <failure>Error: expect(received).toBe(expected)

Expected: 3</failure>
    </testcase>
    <testcase classname="sum subtracts" name="sum subtracts" time="0.001"/>
  </testsuite>
</testsuites>""",
    )

    assert [FAILED, PASSED] == [case.outcome for case in reports.cases]
    assert "src/sum.test.js" == reports.cases[0].file
    assert "Error: expect(received).toBe(expected)\n\nExpected: 3" == reports.cases[0].message


def test_ctest(tmp_path: Path) -> None:
    """`testsuite` is the root element; what was disabled is skipped."""
    reports = read(
        tmp_path,
        junit="""<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux-c++" tests="3" failures="1" disabled="1" skipped="0" time="1">
  <testcase name="sum" classname="sum" time="0.01" status="run"><system-out>ok</system-out></testcase>
  <testcase name="div" classname="div" time="0.02" status="fail">
    <failure message="SEGFAULT"/><system-out>output</system-out></testcase>
  <testcase name="slow" classname="slow" time="0" status="disabled"><skipped message="Disabled"/></testcase>
</testsuite>""",
    )

    assert [("sum", "sum", PASSED), ("div", "div", FAILED), ("slow", "slow", SKIPPED)] == outcomes(
        reports
    )
    assert "SEGFAULT" == reports.cases[1].message


def test_surefire(tmp_path: Path) -> None:
    """A file for each class, in the order of their names; times may have commas."""
    suite = (
        '<testsuite name="org.example.{0}" time="1,234.5" tests="1" errors="0" skipped="0">'
        '<properties><property name="a" value="b"/></properties>'
        '<testcase name="adds" classname="org.example.{0}" time="1,234.5">'
        '<error message="boom" type="java.lang.IllegalStateException"><![CDATA[at]]></error>'
        "</testcase></testsuite>"
    )
    files = {f"TEST-org.example.{name}": suite.format(name) for name in ("SumTest", "DivTest")}
    reports = read(tmp_path, **files)

    assert ["org.example.DivTest", "org.example.SumTest"] == [c.suite for c in reports.cases]
    assert [(ERROR, 1234.5)] * 2 == [(case.outcome, case.secs) for case in reports.cases]


def test_other_xml_is_not_a_report(tmp_path: Path) -> None:
    """It says nothing, and costs nothing; asked for as a report, it is told of."""
    page = "<html><testcase name='x'/></html>"
    coverage = "<!DOCTYPE coverage SYSTEM 'http://example.org/coverage.dtd'><coverage/>"
    unasked = read(tmp_path, page=page, odd="<", nothing="", text="no xml", coverage=coverage)
    asked = read(tmp_path, ["*.xml"], page=page)

    assert not unasked.found and not unasked.cases
    assert [] == unasked.warnings
    assert [
        "the test report page.xml was not read: it is not a JUnit report: its root element is 'html'"
    ] == asked.warnings


def test_a_file_of_another_name_is_read_if_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("<testsuite><testcase name='a'/></testsuite>")

    assert [] == read_reports(tmp_path, ["report"], []).cases
    assert ["a"] == [case.name for case in read_reports(tmp_path, ["report"], ["rep*"]).cases]


def test_with_globs_no_other_file_is_read(tmp_path: Path) -> None:
    """Somebody may collect a report of all, and the single ones beside it."""
    suite = "<testsuite><testcase name='a'/></testsuite>"

    assert 1 == len(read(tmp_path, ["all.xml"], all=suite, one=suite).cases)
    assert 2 == len(read(tmp_path, all=suite, one=suite).cases)


def test_many_reports_that_cannot_be_read_are_few_warnings(tmp_path: Path) -> None:
    reports = read(tmp_path, **{f"r{n:03}": "<testsuite>" for n in range(50)})

    assert not reports.cases
    assert 11 == len(reports.warnings)
    assert "40 more test reports were not read" == reports.warnings[-1]


BOMB = """<!DOCTYPE testsuite [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><testsuite><testcase name="&c;"/></testsuite>"""
FILE = """<!DOCTYPE testsuite [<!ENTITY f SYSTEM "file:///etc/passwd">]>
<testsuite><testcase name="x"><failure>&f;</failure></testcase></testsuite>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("text", [BOMB, FILE, "<!DOCTYPE testsuite><testsuite/>"])
def test_a_document_type_is_refused(tmp_path: Path, text: str, encoding: str) -> None:
    """So there are no entities, in whatever encoding they are written."""
    reports = read(tmp_path, ["*.xml"], junit=text.encode(encoding))

    assert [] == reports.cases
    (warning,) = reports.warnings
    assert warning.endswith("was not read: it has a document type, which may define entities")


def test_nothing_after_a_document_type_reaches_the_parser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """expat would go on to the end of the piece, and expand what it finds there."""
    fed = bytearray()
    make = junit.expat.ParserCreate

    class Spy:
        def __init__(self) -> None:
            self.__dict__["parser"] = make()

        def __getattr__(self, name: str) -> object:
            return getattr(self.parser, name)

        def __setattr__(self, name: str, value: object) -> None:
            setattr(self.parser, name, value)

        def Parse(self, data: bytes, last: bool) -> int:
            fed.extend(data)
            return int(self.parser.Parse(data, last))

    monkeypatch.setattr(junit.expat, "ParserCreate", Spy)
    read(tmp_path, ["*.xml"], junit=BOMB)

    assert b"<!DOCTYPE testsuite [" == bytes(fed)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<testsuite><testcase name='a'/>", "no element found: line 1, column 31"),
        ("<testsuite><testcase name='a'/></oops>", "mismatched tag: line 1, column 33"),
        ("<testsuite>&nope;</testsuite>", "undefined entity: line 1, column 11"),
        ("<?xml version='1.0' encoding='nope'?><testsuite/>", "unknown encoding: nope"),
        ("<testsuite>" + "<a>" * 64, "its elements are nested more than 64 deep"),
        (" " * 5000 + "<testsuite/>", "it has no element in its first 4096 bytes"),
        (f"<testsuite><a b='{'x' * (3 << 20)}'/></testsuite>", "it has a tag of more than 1 MiB"),
        ("<testsuite>" + " " * (17 << 20) + "</testsuite>", "it is larger than 16 MiB"),
        ("", "no element found: line 1, column 0"),
        (
            f"<testsuite>{''.join(f'<a{n}/>' for n in range(1001))}</testsuite>",
            "it has more than 1000 names of tags and attributes",
        ),
        (
            f"<testsuite>{''.join(f'<a b{n}=_/>' for n in range(1001))}</testsuite>".replace(
                "_", "''"
            ),
            "it has more than 1000 names of tags and attributes",
        ),
    ],
)
def test_a_report_that_cannot_be_read_is_a_warning(tmp_path: Path, text: str, why: str) -> None:
    """One line; and other reports count."""
    good = "<testsuite><testcase name='b'/></testsuite>"
    reports = read(tmp_path, ["*.xml"], a=text, b=good)

    assert ["b"] == [case.name for case in reports.cases]
    (warning,) = reports.warnings
    assert warning.startswith("the test report a.xml ")
    assert why in warning


@pytest.mark.parametrize(
    ("limit", "value", "why"),
    [
        ("MAX_CASES", 3, "they have more than 3 test cases"),
        ("MAX_ELEMENTS", 5, "they have more than 5 elements"),
        ("MAX_FILES", 1, "there are more than 1"),
        ("MAX_BYTES", 80, "they have more than 80 B together"),
        ("MAX_KEPT", 3, "names and messages of their tests have more than 3 B"),
        ("READ_SECS", -1.0, "reading them takes more than -1 s"),
    ],
)
def test_beyond_a_limit_what_was_read_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, why: str
) -> None:
    monkeypatch.setattr(junit, limit, value)
    suite = "<testsuite>" + "<testcase name='a'/>" * 3 + "</testsuite>"
    reports = read(tmp_path, a=suite, b=suite)

    assert reports.found or limit == "READ_SECS"
    assert (0 if limit == "READ_SECS" else 3) <= len(reports.cases) <= 4
    assert [f"not all test reports were read: {why}"] == reports.warnings


def test_long_output_in_a_report_is_skipped(tmp_path: Path) -> None:
    """Only tags have to be short: runners write all output of a test into it."""
    text = "line of output\n" * 200_000
    output = f"<system-out>{text}</system-out><system-err><![CDATA[{text}]]></system-err>"
    reports = read(tmp_path, a=f"<testsuite><testcase name='a'>{output}</testcase></testsuite>")

    assert ([], [Case(name="a", outcome=PASSED)]) == (reports.warnings, reports.cases)


def test_messages_and_names_are_clipped(tmp_path: Path) -> None:
    """A few hundred failures have messages; the others count."""
    long = "x" * 10_000
    one = f"<testcase name='{long}' classname='{long}'><failure>{long}{long}</failure></testcase>"
    cases = read(tmp_path, junit=f"<testsuite>{one * 201}</testsuite>").cases

    assert (junit.MAX_NAME, junit.MAX_NAME) == (len(cases[0].name), len(cases[0].suite))
    assert [junit.MAX_MESSAGE] * 200 + [0] == [len(case.message) for case in cases]
    assert 201 == case_report(cases).failed


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e99", "x", "", "9" * 5000])
def test_odd_times_are_none(tmp_path: Path, text: str) -> None:
    reports = read(tmp_path, junit=f"<testsuite><testcase name='a' time='{text}'/></testsuite>")

    assert [0.0] == [case.secs for case in reports.cases]


ENCODINGS = ["utf-8", "utf-16", "utf-16-le", "latin-1", "koi8-r", "cp037", "utf-7", "utf-32"]
PIECES = [*re.findall(r"<[^>]*>|[^<]+", PYTEST + BOMB), "\0", "\ud800", "\u202e", "]]>", "&#0;"]


@given(
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    st.sampled_from(ENCODINGS),
    st.sampled_from(ENCODINGS),
    st.booleans(),
)
def test_no_bytes_hurt(text: str, encoding: str, declared: str, asked: bool) -> None:
    """Whatever a file has in it: cases that can be stored, or one line that says why not."""
    data = f"<?xml version='1.0' encoding='{declared}'?>{text}".encode(
        encoding,
        "surrogatepass" if encoding.startswith("utf") and encoding != "utf-7" else "replace",
    )
    with tempfile.TemporaryDirectory() as place:
        reports = read(Path(place), ["*.xml"] if asked else [], junit=data)

    assert reports.cases == msgspec.json.decode(msgspec.json.encode(reports.cases), type=list[Case])
    assert all(line == plain(line) and "\n" not in line for line in reports.warnings)
    assert len(reports.warnings) <= 1
    assert reports.found or reports.warnings or not asked
