"""Finds the line of a log that says why a command failed. Pure; the rules are in `reason_rules`.

A wrong line is worse than none: where nothing is certain there is no reason, and people see the
last lines of the log instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from states.reason_rules import (
    MAY_FIT,
    REACH,
    REACH_OF_CAUSE,
    RULES,
    STACK,
    TRACEBACK,
    WENT_WELL,
    Kind,
    Rule,
)

# A reason is a headline: one line of so many characters.
MAX_REASON = 240
# So much is looked at: the last lines of a log, and the beginning of a line.
MAX_LINES = 2000
MAX_LINE = 1000
# A traceback has at most so many lines.
MAX_DEDENT = 300
# And so many lines may be between a test's name and it: a rule, and why a module was not imported.
TO_TRACEBACK = 3
# And so many between it and its message, which has at most so many lines.
TO_MESSAGE = 60
MAX_MESSAGE = 4

# Rules with the same tool, kind and rank find one thing.
_Group = tuple[str, Kind, int]


def find_error(lines: Sequence[str]) -> int | None:
    """The index of the line from which `find_reason` has its text; None if it has none."""
    skipped = max(0, len(lines) - MAX_LINES)
    log = _Log([line[:MAX_LINE] for line in lines[skipped:]])
    log.read()
    found = log.best()
    return None if found is None else skipped + found[1][found[2]].number


class _Match(msgspec.Struct, frozen=True):
    """A line that a rule fits, and what is shown of it."""

    number: int
    text: str
    rule: Rule


def find_reason(lines: Sequence[str]) -> str:
    """Why the command failed that printed these lines last, in one line; "" if it is not clear.

    `lines` are without control characters. The work is linear in their size.
    """
    log = _Log([line[:MAX_LINE] for line in lines[-MAX_LINES:]])
    log.read()
    return _cut(log.reason())


class _Log:
    """The lines of a log, and what the rules find in them."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._found: dict[_Group, list[_Match]] = {}
        self._open: set[str] = set()  # the tools whose lists have begun
        self._heading = ""
        # How many lines of other things come after each line; and which is the last consequence.
        self._after: list[int] = []
        self._consequence = -1

    def read(self) -> None:
        """Apply every rule to every line."""
        others = [self._read(number, line) for number, line in enumerate(self._lines)]
        at_or_after = list(accumulate(reversed(others), initial=0))[::-1]
        self._after = at_or_after[1:]

    def _read(self, number: int, line: str) -> bool:
        """Apply every rule to a line. Whether it is a line of other things."""
        if not line.strip():
            return False
        if WENT_WELL.match(line):
            kept = (group for group in self._found if group[1] is Kind.REPORT)
            self._found = {group: self._found[group] for group in kept}
        fits = set()
        if MAY_FIT.match(line):
            fits = {rule.kind for rule in RULES if self._fits(rule, number, line)}
        if not line[0].isspace():
            self._heading = line
        if Kind.CONSEQUENCE in fits:
            self._consequence = number
            return False
        return not STACK.match(line)

    def reason(self) -> str:
        """The text of the best line that was found; "" if there is none near enough to the end."""
        best = self.best()
        if best is None:
            return ""
        kind, found, place = best
        if kind in (Kind.EXCEPTION, Kind.ERROR):
            return found[place].text
        more = len({match.text for match in found}) - 1
        counted = ""
        if more and kind is Kind.REPORT:
            counted = f", and {more} more {found[0].rule.each}{'s' if more > 1 else ''}"
        return _cut(found[0].text, MAX_REASON - len(counted)) + counted

    def best(self) -> tuple[Kind, list[_Match], int] | None:
        """The lines that say most, and the place of the best of them; None if there is none."""
        lowest: dict[tuple[str, Kind], int] = {}
        for tool, kind, rank in self._found:
            lowest[tool, kind] = min(rank, lowest.get((tool, kind), rank))
        groups = [
            (kind, found)
            for (tool, kind, rank), found in self._found.items()
            if lowest[tool, kind] == rank
        ]
        near = [(kind, found) for kind, found in groups if self._is_near(found[-1])]
        kind, found = min(near, key=_order, default=(Kind.CONSEQUENCE, []))
        if not found:
            return None
        last = kind in (Kind.EXCEPTION, Kind.ERROR) and not found[0].rule.first
        return kind, found, -1 if last else 0

    def _is_near(self, match: _Match) -> bool:
        """Whether so little comes after it that it can be why the command failed."""
        most = match.rule.most_after
        if match.rule.kind is Kind.REPORT and self._consequence > match.number:
            near = self._after[self._consequence] <= REACH[Kind.CONSEQUENCE]
            most = REACH_OF_CAUSE if near else most
        return self._after[match.number] <= most

    def _fits(self, rule: Rule, number: int, line: str) -> bool:
        """Whether a rule fits a line; what it finds there is noted."""
        if rule.opens is not None and rule.opens.match(line):
            self._open.add(rule.tool)
            self._found.pop((rule.tool, rule.kind, rule.rank), None)
        match = rule.pattern.match(line)
        if match is None or (rule.opens is not None and rule.tool not in self._open):
            return False
        following = self._next(number)
        if rule.then is not None and not rule.then.match(following):
            return False
        if rule.silent:
            return True
        text = (match["text"] if "text" in rule.pattern.groupindex else "") or line
        if rule.dedent:
            number = self._dedented(number)
            text = self._lines[number]
        more = following if rule.join else self._raised(number) if rule.raises else ""
        if rule.says is not None:
            text = self._with_message(rule, rule.says, number, text.strip()) or line
        parts = (self._heading if rule.under else "", text, more)
        shown = " ".join(" ".join(parts).split())
        found = self._found.setdefault((rule.tool, rule.kind, rule.rank), [])
        found.append(_Match(number, shown, rule))
        return True

    def _next(self, number: int) -> str:
        """The next line, or the one after it if that is blank; "" if there is none."""
        later = self._lines[number + 1 : number + 3]
        return next((line for line in later if line.strip()), "")

    def _raised(self, number: int) -> str:
        """The exception of a traceback that begins within a few lines; "" if none does."""
        for later in range(number + 1, min(number + 1 + TO_TRACEBACK, len(self._lines))):
            if re.match(TRACEBACK, self._lines[later]):
                end = self._dedented(later)
                return self._lines[end] if end > later else ""
        return ""

    def _with_message(self, rule: Rule, says: re.Pattern[str], number: int, name: str) -> str:
        """The name of a failed test and its message; "" if the next test comes first."""
        text, lines = name, 0
        for line in self._lines[number + 1 : number + 1 + TO_MESSAGE]:
            pattern = rule.more if lines else says
            match = pattern.match(line) if pattern is not None else None
            over = lines and not match and line.strip()
            if over or lines == MAX_MESSAGE or rule.pattern.match(line):
                break
            if match:
                if said := match["text"].strip():
                    mark = "" if text.endswith((":", ".")) else ":" if text == name else ";"
                    text = f"{text}{mark} {said}"
                lines += 1
        return text if lines else ""

    def _dedented(self, number: int) -> int:
        """The next line that is not indented more than this one; this one if there is none."""
        indent = _indent(self._lines[number])
        for later in range(number + 1, min(number + MAX_DEDENT, len(self._lines))):
            if self._lines[later].strip() and _indent(self._lines[later]) <= indent:
                return later
        return number


def _order(group: tuple[Kind, list[_Match]]) -> tuple[int, int]:
    """The smaller, the better: the last tool's report or error, the first consequence."""
    kind, found = group
    return kind, found[0].number if kind is Kind.CONSEQUENCE else -found[-1].number


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _cut(text: str, most: int = MAX_REASON) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
