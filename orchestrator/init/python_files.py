"""Dependencies that a Python project's files name: lists of requirements, setup.py, setup.cfg."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.init.tree import Tree

_LOCAL = re.compile(r"^(?:-e *|--editable[ =]*)?\.(?:/\S*)?(?:\[([\w,. -]*)\])?\s*(?:#.*)?$")
_INCLUDED = re.compile(r"^(?:-r|-c|--requirement|--constraint)[ =]*([^\s#]+)")
MOST_FILES = 50


@dataclass(frozen=True)
class Requirements:
    """A list of requirements: `files` that it consists of, `local` if the project is in it.

    `extras` are those of the project that it wants.
    """

    files: tuple[str, ...]
    local: bool
    extras: tuple[str, ...]


def requirements(tree: Tree, path: str) -> Requirements:
    """What a list of requirements includes."""
    files: dict[str, None] = {}
    extras: dict[str, None] = {}
    local = False
    waiting = [path]
    while waiting and len(files) < MOST_FILES:
        current = waiting.pop()
        if current in files or current not in tree:
            continue
        files[current] = None
        for line in map(str.strip, tree.text(current).splitlines()):
            if found := _LOCAL.match(line):
                local = local or current == path
                extras |= dict.fromkeys(filter(None, re.split(r"[ ,]+", found[1] or "")))
            elif found := _INCLUDED.match(line):
                waiting.append(_joined(current, found[1]))
    return Requirements(tuple(files), local, tuple(extras))


def _joined(current: str, named: str) -> str:
    """The path of a file that another one includes."""
    parts = current.split("/")[:-1]
    for part in named.removeprefix("./").split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def declared(tree: Tree, extras: Iterable[str] = ()) -> list[str] | None:
    """What `setup.cfg` and `setup.py` say that the project needs, with these extras.

    None if `setup.py` computes it.
    """
    cfg = tree.ini("setup.cfg")
    found = _lines(cfg.get("options", "install_requires", fallback=""))
    for extra in extras:
        found += _lines(cfg.get("options.extras_require", extra, fallback=""))
    written = static_lists(tree, extras, base=True)
    return None if written is None else [*found, *written]


def static_lists(tree: Tree, extras: Iterable[str], *, base: bool = False) -> list[str] | None:
    """The requirements in `setup.py` for the extras, and for the project with `base`.

    None if they are not written out as lists of texts.
    """
    if "setup.py" not in tree:
        return []
    try:
        module = ast.parse(tree.text("setup.py"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names = {
        target.id: node.value
        for node in ast.walk(module)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: list[str] = []
    for keyword in _keywords(module):
        value = (
            names.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else keyword.value
        )
        if keyword.arg == "install_requires" and base:
            listed = _literal(value)
            if not isinstance(listed, list):
                return None
            found += listed
        elif keyword.arg == "extras_require":
            known = _literal(value)
            if not isinstance(known, dict):
                return None
            for extra in extras:
                one = known.get(extra, [])
                found += [one] if isinstance(one, str) else one
        elif keyword.arg is None and base:
            return None  # setup(**something)
    return [one for one in found if isinstance(one, str)]


def _keywords(module: ast.Module) -> Iterator[ast.keyword]:
    """The arguments of the call of `setup`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            if name == "setup" or (isinstance(name, ast.Name) and name.id == "setup"):
                yield from node.keywords


def _literal(node: ast.AST | None) -> object:
    try:
        found = ast.literal_eval(node) if isinstance(node, ast.expr) else None
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    return list(found) if isinstance(found, list | tuple) else found


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
