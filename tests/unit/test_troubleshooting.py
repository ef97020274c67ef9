"""docs/troubleshooting.md: every message that it explains is one that the code still has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.pages import DOCS, ROOT

PAGE = (DOCS / "troubleshooting.md").read_text()
MESSAGES = [found[2].strip() for found in re.finditer(r"^### (`+)(.+?)\1$", PAGE, re.MULTILINE)]
# Stands for what a message has from elsewhere.
VALUE = "\0"


def texts_of(tree: ast.AST) -> Iterator[str]:
    """Every text of a module, with `VALUE` for what is put into it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def texts() -> tuple[str, ...]:
    """What pikaci and its runner may say."""
    code = [path for room in ("orchestrator", "states") for path in (ROOT / room).rglob("*.py")]
    found = [text for path in code for text in texts_of(ast.parse(path.read_text()))]
    runner = (ROOT / "nix/guest/pikaci-incus-run").read_text()
    return (*found, *re.sub(r"\$\{?\w+\}?", VALUE, runner).splitlines())


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_exists(message: str) -> None:
    """In one piece: `...` is what differs."""
    pattern = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)

    assert any(pattern.search(text) for text in texts())


def test_there_are_many() -> None:
    """No heading is missed by its form, apart from one of other tools."""
    assert PAGE.count("\n### ") - 1 == len(MESSAGES) > 40
