"""docs/environment.md names every variable that the code reads, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.pages import DOCS, ROOT

PAGE = (DOCS / "environment.md").read_text()
# In either case of letters.
PROXIES = {"all_proxy", "http_proxy", "https_proxy", "no_proxy"}
NAMES = {"environ", "environb", "environment", "ours"}
# By a rule, not by name.
BY_RULE = {
    "INCUS_CONF", "LXD_DIR", "DOCKER_HOST", "CONTAINER_HOST",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST",
    "CARGO_REGISTRY_DEFAULT", "CARGO_REGISTRIES_*_INDEX", "CARGO_REGISTRIES_*_PROTOCOL",
}  # fmt: skip
# By a library or another program.
BY_OTHERS = {"HOME", "TMPDIR", "PYTHONIOENCODING"}
# For tests alone.
NOT_FOR_PEOPLE = {"PIKACI_FAKE_INCUS_DIR"}


def documented() -> set[str]:
    """The first cells of the page's tables of variables."""
    rows = [line for line in PAGE.split("<!-- generated -->")[1].splitlines() if line[:3] == "| `"]
    return {name.strip(" `") for row in rows for name in row.split(" | ")[0][1:].split(",")}


def read_by(path: Path) -> Iterator[str]:
    """The variables that a module reads by a name that is in it."""
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    loops = [
        (node.target.id, node.iter)
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name)
    ]

    def words(key: ast.expr) -> Iterator[str]:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            if re.fullmatch(r"\w+", key.value):
                yield key.value.lower() if key.value.lower() in PROXIES else key.value
        elif isinstance(key, ast.Tuple):
            yield from (name for each in key.elts for name in words(each))
        elif isinstance(key, ast.Name):
            # A loop over a name means the constant of that name.
            for name, values in (*loops, *constants.items()):
                if name == key.id and not (isinstance(values, ast.Name) and values.id == name):
                    yield from words(values)

    def of(node: ast.expr) -> bool:
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        return name in NAMES

    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and of(node.value):
            yield from words(node.slice)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr == "get" and of(node.func.value):
                yield from words(node.args[0])
        elif isinstance(node, ast.Compare) and of(node.comparators[0]):
            yield from words(node.left)
        if isinstance(node, ast.keyword) and node.arg == "envvar":
            yield from words(node.value)


def test_every_variable_that_is_read_is_on_the_page() -> None:
    """And every one on the page is read."""
    code = [path for room in ("orchestrator", "states") for path in (ROOT / room).rglob("*.py")]
    read = {name for path in code if "fake_incus" not in path.parts for name in read_by(path)}

    assert (set(), set()) == (
        read - documented() - NOT_FOR_PEOPLE,
        documented() - read - BY_RULE - BY_OTHERS,
    )
