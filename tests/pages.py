"""The pages for people: their blocks of code, and what a reader does with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = (*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")))
_FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block between fences: its language, what follows that in its first line, and the text."""

    language: str
    more: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in their order."""
    found = []
    for match in _FENCE.finditer(page):
        language, _, more = match[3].strip().partition(" ")
        text = re.sub(f"^{match[1]}", "", match[4], flags=re.MULTILINE)
        found.append(Block(language, more, text, page.count("\n", 0, match.start()) + 1))
    return found


def typed(text: str) -> list[tuple[str, str]]:
    """The commands of a block of `console`, each with what is shown below it.

    A command continues in the next line after a backslash.
    """
    commands: list[tuple[str, str]] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            while line.endswith("\\"):
                line = f"{line}\n{next(lines)}"
            commands.append((line[2:], ""))
        elif commands:
            command, shown = commands[-1]
            commands[-1] = command, f"{shown}{line}\n"
    return commands


def prose(page: str, *, code: bool = False) -> str:
    """A page without its blocks; and without code in its lines, unless that is wanted."""
    text = _FENCE.sub("", page)
    return text if code else re.sub(r"(`+)[^`]+?\1", "", text)
