"""Which lines of a log say why a command failed. Data only; `states.log_reasons` applies it.

Every rule has been tried on logs that real tools wrote (`tests/reasons/`). A pattern must match
from a line's start. It repeats nothing without a bound more than once, and no repetition is inside
another, so that a hostile line costs little: a test holds that.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec


class Kind(enum.IntEnum):
    """How much a line says; the smaller, the more.

    A `REPORT` names a failed test, or an error with its place. An `EXCEPTION` ended a program. An
    `ERROR` is what a program said last. A `CONSEQUENCE` says only what else did not work, so that
    lines before it count as if it was not there.
    """

    REPORT = 1
    EXCEPTION = 2
    ERROR = 3
    CONSEQUENCE = 4


# So many lines of other things may follow at most, blank ones and consequences not counted. What is
# further from the end may have been expected, and the command failed for another reason.
REACH = {Kind.REPORT: 40, Kind.EXCEPTION: 40, Kind.ERROR: 4, Kind.CONSEQUENCE: 200}
# The same for a report that a consequence follows: other parts of a build may go on for a while.
REACH_OF_CAUSE = 400


# The rank of consequences that are never shown.
SILENT = 9


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One form of line.

    Of several rules of a `tool`, those with the lowest `rank` that found something count. `text` is
    what is shown, the pattern's group `text` or all of the line. The next line must match `then`;
    `join` adds the next line to the text. `under` puts the last line that is not indented before
    it: the file of an eslint error. `dedent` takes, instead of the line, the next one that is not
    indented more; `raises` adds that of a traceback that begins within a few lines. `says` finds
    the first line of a failed test's message in the lines after its name, and `more` those that
    follow: their groups `text` are added, a few at most. `opens` begins a list: only lines after
    the last such line count. Of an error the last line is shown, or the `first`. `reach` is instead
    of the kind's. `each` is what a line of a report is called when there are more of them.
    """

    tool: str
    kind: Kind
    pattern: re.Pattern[str]
    rank: int = 0
    then: re.Pattern[str] | None = None
    join: bool = False
    under: bool = False
    dedent: bool = False
    raises: bool = False
    says: re.Pattern[str] | None = None
    more: re.Pattern[str] | None = None
    opens: re.Pattern[str] | None = None
    first: bool = False
    reach: int | None = None
    each: str

    @property
    def silent(self) -> bool:
        """Whether its lines are never shown: they say nothing, and count for nothing."""
        return self.kind is Kind.CONSEQUENCE and self.rank == SILENT

    @property
    def most_after(self) -> int:
        """How many lines of other things may follow."""
        return REACH[self.kind] if self.reach is None else self.reach


def _rule(tool: str, kind: Kind, pattern: str, each: str = "error", **more: Any) -> Rule:
    compiled: dict[str, Any] = {
        key: re.compile(value) if isinstance(value, str) else value for key, value in more.items()
    }
    return Rule(tool=tool, kind=kind, pattern=re.compile(pattern), each=each, **compiled)


_REPORT, _EXCEPTION, _ERROR, _SO = Kind
# A path: no blanks, and no colon, which ends it.
_PATH = r"[^\s:]{1,200}"
# How Python begins a traceback; its last line, which is not indented, is the exception.
TRACEBACK = r"Traceback \(most recent call last\):$"
_RUST_PLACE = r"\s{0,10}--> \S"

RULES = (
    # Test runners.
    _rule(
        "pytest",
        _REPORT,
        r"(?:FAILED|ERROR) \S{1,200}(?:::.+)? - \S",
        opens=r"=+ short test summary info",
        each="test",
    ),
    _rule("pytest", _REPORT, r"E {2,30}(?P<text>\S.*)", rank=1, each="line"),
    _rule(
        "pytest", _REPORT, r"(?:FAILED|ERROR) \S{1,300}(?:\.py|::\S{1,200})$", rank=2, each="test"
    ),
    _rule(
        "unittest",
        _REPORT,
        r"(?:FAIL|ERROR): \w{1,200} \([\w.]{1,300}\)",
        raises=True,
        each="test",
    ),
    _rule(
        "cargo test",
        _REPORT,
        r"---- (?P<text>\S.{0,300}) stdout ----$",
        says=r"(?:thread '[^']{0,200}' (?:\(\d{1,9}\) )?|note: )?"
        r"(?P<text>panicked at .*|Error: .*|test did not panic.*)",
        more=r"(?!note: |stack backtrace:|thread '|failures:$)"
        r"(?P<text>\S.*|\s{1,10}(?:left|right): .*)",
        each="test",
    ),
    _rule(
        "cargo test",
        _REPORT,
        r"test \S{1,300} (?:- should panic )?\.\.\. FAILED$",
        rank=1,
        each="test",
    ),
    _rule(
        "go test",
        _REPORT,
        r"\s{0,20}--- FAIL: (?P<text>\S{1,300})",
        then=r"\s{1,20}\S{1,200}_test\.go:\d|panic: ",
        says=r"\s{0,20}(?P<text>\S.*)",
        each="test",
    ),
    _rule("go test", _REPORT, r"\s{0,20}--- FAIL: \S", rank=1, each="test"),
    _rule(
        "jest",
        _REPORT,
        r"\s{1,4}● (?!Console$|Validation|Deprecation|Test suite failed)(?P<text>\S.*)",
        says=r"\s{4}(?P<text>\S.*)",
        more=r"\s{4}(?P<text>(?:Expected|Received)\b.*)",
        each="test",
    ),
    _rule("jest", _REPORT, r"\s{1,4}● Test suite failed to run$", join=True, each="test"),
    _rule(
        "mocha",
        _REPORT,
        r"\s{2,4}\d{1,5}\) (?P<text>\S.*)",
        then=r"\s{5}",
        says=r"\s{5,40}(?P<text>\S.*)",  # further titles, and the error
        more=r"\s{5,40}(?!at |[+-])(?P<text>\S.*)",
        opens=r"\s{2}\d{1,6} failing$",
        each="test",
    ),
    _rule(
        "rspec",
        _REPORT,
        r"\s{2,4}\d{1,5}\) (?P<text>\S.*)",
        then=r"\s{5,8}Failure/Error: ",
        says=r"\s{5,8}(?P<text>Failure/Error: .*)",
        more=r"\s{5,40}(?![#(])(?P<text>\S.*)",
        opens=r"Failures:$",
        reach=400,  # backtraces, and the list of the next rule
        each="test",
    ),
    _rule("rspec", _REPORT, r"rspec \S{1,300}:\d{1,6} # (?P<text>.+)", rank=1, each="test"),
    _rule(
        "ctest",
        _REPORT,
        r"\s{1,8}\d{1,5} - (?P<text>\S{1,300} \((?:Failed|Timeout|Not Run|[A-Z]{4,12})\))",
        each="test",
    ),
    _rule(
        "prove",
        _REPORT,
        r"\s{0,40}#\s{1,4}(?P<text>Failed test\b(?!.*TODO).*)",
        says=r"\s{0,40}#\s{1,4}(?P<text>at \S.*)",
        more=r"\s{0,40}#\s{4,40}(?P<text>\S.*)",
        each="test",
    ),
    _rule(
        "TAP",
        _REPORT,
        r"\s{0,40}not ok \d{1,6}\b(?!.*# (?i:todo|skip))(?: - | |$)(?P<text>.*)",
        rank=1,
        # Of YAML, as node writes it; and of a comment, as bats does.
        says=r"\s{0,40}(?:error: (?:[|>]-?$)?(?!'test failed'|'\d{1,6} subtest)|# (?=\(in ))"
        r"(?P<text>.*)",
        more=r"(?!\s{2,40}\w{1,40}:)(?:\s{4,40}|#\s{2,40})(?P<text>\S.*)",
        each="test",
    ),
    # Compilers and checkers: an error and its place.
    _rule("compiler", _REPORT, rf"{_PATH}:\d{{1,7}}:(?:\d{{1,5}}:)? (?:fatal )?error: \S"),
    _rule("compiler", _REPORT, r"error(?:\[E\d{4}\])?: \S", then=_RUST_PLACE, join=True),
    _rule("compiler", _REPORT, rf"{_PATH}\(\d{{1,7}},\d{{1,5}}\): error TS\d{{1,5}}: \S"),
    _rule("compiler", _REPORT, rf"{_PATH}:\d{{1,7}}:\d{{1,5}} - error TS\d{{1,5}}: \S"),
    _rule("compiler", _REPORT, rf"{_PATH}\.go:\d{{1,7}}:\d{{1,5}}: \S"),
    _rule("compiler", _REPORT, r"\S.{0,200}?: (?:undefined reference to|multiple definition of) "),
    _rule("maven", _REPORT, rf"\[ERROR\] (?P<text>{_PATH}:\[\d{{1,7}},\d{{1,5}}\] \S.*)"),
    _rule("surefire", _REPORT, r"\[ERROR\] {2,4}(?P<text>\S{1,200}:\d{1,6} \S.*)", each="test"),
    _rule("cmake", _REPORT, r"CMake Error at \S{1,300}:\d{1,6}(?: \(\w+\))?:$", join=True),
    _rule("cmake", _REPORT, r"CMake Error: \S"),
    _rule("compiler", _REPORT, r"\S{0,200}\bld(?:\.\w{1,8})?: cannot find \S"),
    _rule("compiler", _REPORT, r"error TS\d{1,5}: \S"),
    _rule("make", _REPORT, r"[^\s:]{1,200}:\d{1,6}: \*\*\* \S"),
    _rule("maven", _REPORT, r"\[FATAL\] (?P<text>\S.*)"),
    _rule("rustfmt", _REPORT, r"Diff in \S{1,300}(?::\d{1,7}:| at line \d{1,7}:)$", each="place"),
    _rule("coverage", _REPORT, r"Coverage failure: \S"),
    _rule("coverage", _REPORT, r"ERROR: (?P<text>Coverage \S.*)"),
    _rule("coverage", _REPORT, r"(?:FAIL|ERROR:?) (?P<text>Required test coverage \S.*)", rank=1),
    _rule("git", _REPORT, r"[^\s:]{1,200}:\d{1,7}: (?:trailing whitespace|leftover conflict)"),
    _rule("doctest", _REPORT, r"Failed example:$", join=True, each="test"),
    _rule("git", _REPORT, r"CONFLICT \(\w", each="conflict"),
    _rule("patch", _REPORT, r"Hunk #\d{1,6} FAILED at ", each="hunk"),
    _rule(
        "linter",
        _REPORT,
        rf"{_PATH}:\d{{1,7}}:\d{{1,5}}: [A-Z]{{1,4}}\d{{2,4}}:? \S",
        each="finding",
    ),
    _rule("ruff", _REPORT, r"[A-Z]{1,4}\d{3,4} \S", then=_RUST_PLACE, join=True, each="finding"),
    _rule("ruff", _REPORT, r"(?!warning|note|help)[a-z-]{1,40}: \S", then=_RUST_PLACE, join=True),
    _rule("black", _REPORT, r"would reformat \S|error: cannot (?:parse|format):? \S", each="file"),
    _rule("eslint", _REPORT, r"\s{2,8}\d{1,7}:\d{1,5}\s{1,4}error\s{2,8}\S", under=True),
    _rule(
        "shellcheck",
        _REPORT,
        r"\s{0,400}\^-{0,400}\^? (?P<text>SC\d{4} \(\w{1,20}\): .+)",
        each="finding",
    ),
    _rule("sanitizer", _REPORT, r"SUMMARY: \w{1,40}Sanitizer: \S"),
    # Programs that ended by an exception.
    _rule("Python", _EXCEPTION, rf"\s*{TRACEBACK}", dedent=True),
    _rule(
        "exception",
        _EXCEPTION,
        r"\s{0,12}(?:Uncaught )?[A-Za-z_][\w.]{0,150}"
        r"(?:Error|Exception)(?: \[\w{1,60}\])?: \S",
    ),
    _rule(
        "pytest",
        _EXCEPTION,
        r"INTERNALERROR> (?P<text>[A-Za-z_][\w.]{0,150}(?:Error|Exception): \S.*)",
    ),
    # Without a stack it is what many programs print, and go on.
    _rule(
        "exception",
        _EXCEPTION,
        r"\s{0,12}(?:Uncaught )?Error(?: \[\w{1,60}\])?: \S",
        then=r"\s{4,20}at \S|Require stack:",
    ),
    # The exceptions of a group say more than the group.
    _rule(
        "Python",
        _EXCEPTION,
        r"\s{0,40}\| (?P<text>[A-Za-z_][\w.]{0,150}(?:Error|Exception)(?:: .*|$))",
    ),
    _rule("exception", _EXCEPTION, r"[A-Z]\w{0,60}Error:$", join=True),
    _rule("Java", _EXCEPTION, r"(?:Exception in thread \"[^\"]{0,100}\"|Caused by:) \S"),
    _rule("Rust", _EXCEPTION, r"thread '[^']{0,200}' (?:\(\d+\) )?panicked at \S", join=True),
    _rule("Go", _EXCEPTION, r"panic: \S"),
    _rule("Ruby", _EXCEPTION, r"\S{1,300}\.rb:\d{1,7}:in .* \([A-Z][\w:]{0,100}\)$"),
    _rule("Ruby", _EXCEPTION, r"\S{1,300}\.rb:\d{1,7}: syntax error"),
    _rule("assert", _EXCEPTION, r"\S.{0,300}: Assertion .* failed\.?$"),
    _rule(
        "Perl",
        _EXCEPTION,
        r"(?!Use of |Useless |Possible |Argument |Subroutine |BEGIN failed)"
        r"\S.* at \S{1,300} line \d{1,7}\.$",
        reach=4,
    ),
    _rule("Perl", _EXCEPTION, r"(?P<text>Can't locate \S{1,200} in @INC)", reach=4),
    _rule("Perl", _EXCEPTION, r"\S.* at \S{1,300} line \d{1,7}, near ", reach=8),
    # The last words of programs.
    _rule("shell", _ERROR, r"\S{1,200}: (?:line )?\d{1,6}: .+: (?:command )?not found$"),
    _rule("shell", _ERROR, r"\S{1,200}: (?:line )?\d{1,6}: .+: unbound variable$"),
    _rule("shell", _ERROR, r"\S{1,200}: (?:line )?\d{1,6}: syntax error\b"),
    _rule(
        "shell",
        _ERROR,
        r"\S{1,200}: (?:.+: )?(?:No such file or directory|Permission denied|"
        r"No space left on device|Disk quota exceeded|Read-only file system|"
        r"not in gzip format)$",
    ),
    # What many programs say while they try again, and then go on.
    _rule(
        "network",
        _ERROR,
        r"(?!(?i:note|hint|info|warn|warning|debug): )\S{1,200}: (?:.+: )?"
        r"(?:Network is unreachable|Connection refused|Connection timed out|"
        r"Connection reset by peer|Name or service not known|"
        r"Temporary failure in name resolution)$",
        reach=1,
    ),
    _rule("shell", _ERROR, r"[\w./+-]{1,100}: cannot \S"),
    _rule("shell", _ERROR, r"sed: -e expression #\d|awk: line \d{1,6}: \S"),
    _rule("tar", _ERROR, r"tar: .*: (?:Cannot|Wrote only) \S"),
    _rule("curl", _ERROR, r"curl: \(\d{1,3}\) \S"),
    _rule("git", _ERROR, r"(?:fatal|remote): \S"),
    _rule("apt", _ERROR, r"E: \S"),
    _rule(
        "error",
        _ERROR,
        r"(?:\S{1,100}: )?(?:[Ff]atal )?(?:error|Error|ERROR|FATAL): "
        r"(?!(?:0|[Nn]one|failed to push)\b)\S",
    ),
    _rule(
        "maven",
        _ERROR,
        r"\[ERROR\] Failed to execute goal \S{1,300} \(\S{1,80}\) on project \S{1,80}:"
        r" (?P<text>.+)",
        reach=12,
    ),
    # A log's line with a level, if it is the very last.
    _rule(
        "level",
        _ERROR,
        r"(?:\d{4}-\d\d-\d\d[T ]\S{1,40} )?\[?(?:ERROR|FATAL|CRITICAL)\]? (?!\[)\S",
        reach=0,
    ),
    _rule("pytest", _ERROR, r"={0,100} ?(?P<text>no tests ran) in "),
    _rule("ESLint", _ERROR, r"ESLint couldn't \S", reach=12),
    _rule("jest", _ERROR, r"No tests found, exiting with code \d", reach=8),
    _rule("nox", _ERROR, r"nox > (?P<text>Sessions not found: .*)"),
    _rule("tox", _ERROR, r"\S{1,80}: (?P<text>Exception running subprocess .*)"),
    _rule("maven", _ERROR, r"\[ERROR\] (?P<text>Plugin \S{1,300} or one of its .*)", reach=12),
    _rule(
        "npm",
        _ERROR,
        r"npm (?:error|ERR!) (?!code |errno |syscall |path |command |signal |A complete log|"
        r"Test failed|Lifecycle script|Run \"|\[|-)(?P<text>\S.*)",
        opens=r"npm (?:error|ERR!) code ",
        first=True,
        reach=200,
    ),
    _rule(
        "npm",
        _ERROR,
        r"npm (?:error|ERR!) (?P<text>Missing script: .*)",
        reach=20,
    ),
    _rule("Python", _ERROR, r"\S*python[\d.]{0,6}: (?:No module named|can't open file) \S"),
    # What follows from it.
    _rule("make", _SO, r"(?:\S*make|gmake)(?:\[\d{1,3}\])?: \*\*\* (?!Waiting)\S"),
    _rule(
        "make", _SO, r"(?:\S*make|gmake)(?:\[\d{1,3}\])?: (?:\*\*\* Waiting|Leaving) ", rank=SILENT
    ),
    _rule("Perl", _SO, r"BEGIN failed--|Execution of \S{1,300} aborted due", rank=SILENT),
    _rule("git", _SO, r"error: failed to push some refs", rank=SILENT),
    _rule("ninja", _SO, r"FAILED: (?:\[code=\d+\] )?\S"),
    _rule("ninja", _SO, r"ninja: build stopped: ", rank=SILENT),
    _rule("cargo", _SO, r"error: (?:could not compile|test failed|aborting due to|\d+ target)"),
    _rule("ld", _SO, r"collect2: error: "),
    _rule("npm", _SO, r"npm (?:error|ERR!)", rank=SILENT),
    _rule("tox", _SO, r"\S{1,80}: exit [1-9]\d{0,2} \("),
    _rule("tox", _SO, r"\s{2}\S{1,80}: FAIL (?:code \d+|✖)", rank=1),
    _rule("tox", _SO, r"\s{2}evaluation failed ", rank=SILENT),
    _rule("nox", _SO, r"nox > Command .* failed with exit code \d{1,3}"),
    _rule("nox", _SO, r"nox > ", rank=SILENT),
    _rule(
        "pip",
        _SO,
        r"(?:error|ERROR): (?:metadata-generation-failed|subprocess-exited-)",
        rank=SILENT,
    ),
    _rule("pip", _SO, r"\s{0,10}(?:note: |hint: |× |╰─> |\[end of output\])", rank=SILENT),
)

# Fits every line that a rule fits, or that opens a list: most lines of a log are done with at once.
MAY_FIT = re.compile(
    "|".join(
        pattern.pattern.replace("(?P<text>", "(?:")
        for rule in RULES
        for pattern in (rule.pattern, rule.opens)
        if pattern is not None
    )
)

# Lines of a stack, and notes to an error, count with what they belong to.
STACK = re.compile(
    r"\s{1,40}(?:at |from |File |\d{1,6}: |\.\.\. \d{1,6} more|\d{0,7} \||\^|~)|Node\.js v\d|note: "
    rf"|In file included from |{_PATH}:\d{{1,7}}:\d{{1,5}}:\s{{1,3}}(?:note|required from)"
)

# Something ended well. What was said of an error before was expected, or was made good; a failed
# test or an error with its place was not.
WENT_WELL = re.compile(
    r"={0,100} ?\d{1,7} passed(?!.*\b(?:failed|error)).* in \d"
    r"|OK(?: \(|$)|test result: ok|ok\s{1,20}\S{1,300}\s{1,20}[\d.]{1,12}s|Result: PASS"
    r"|100% tests passed|Tests:\s{1,12}\d{1,7} passed, \d{1,7} total|All checks passed"
    r"|Successfully installed |Success: no issues found|\[INFO\] BUILD SUCCESS"
)
