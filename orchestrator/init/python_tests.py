"""What the tests of a Python project need, and where they are.

Projects name it in one of many places. The first that is about tests counts; if there is none, the
first that is for developers.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import dataclass, field
from typing import Any

from orchestrator.init.python_files import requirements
from orchestrator.init.tree import Tree, parse_ini, strings, table

_FOR_TESTS = ("test", "tests", "testing", "unittest")
_FOR_DEVELOPERS = ("dev", "develop", "development")
_FILES_FOR_TESTS = (
    "requirements-test.txt",
    "requirements-tests.txt",
    "requirements-testing.txt",
    "requirements_test.txt",
    "test-requirements.txt",
    "test_requirements.txt",
    "requirements/test.txt",
    "requirements/tests.txt",
    "requirements/testing.txt",
    "tests/requirements.txt",
    "tests/requirements-test.txt",
)
_FILES_FOR_DEVELOPERS = (
    "requirements-dev.txt",
    "requirements_dev.txt",
    "dev-requirements.txt",
    "dev_requirements.txt",
    "requirements/dev.txt",
    "requirements/develop.txt",
)
_TEST_FILES = ("test_*.py", "*/test_*.py", "*_test.py")
_DIRECTORIES = ("tests", "test", "testing")
_CONFIGURES_PYTEST = ("pyproject.toml", "pytest.ini", "setup.cfg", "tox.ini")


@dataclass
class TestNeeds:
    """Groups and extras of the project, lists of requirements, and requirements `literal`ly.

    `paths` are the arguments for pytest. `names_pytest` if it is among all of that; `can_report` if
    pytest's own report is not turned off.
    """

    __test__ = False  # pytest, this is no test

    groups: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    literal: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    has_tests: bool = False
    names_pytest: bool = False
    can_report: bool = True

    def __bool__(self) -> bool:
        return bool(self.groups or self.extras or self.files or self.literal)


def test_needs(tree: Tree, pyproject: dict[str, Any]) -> TestNeeds:
    """What is to be installed for the tests, and how pytest is called."""
    tox = _Tox(tree, pyproject)
    found = TestNeeds()
    for one in _candidates(tree, pyproject, tox):
        if one:
            found = one
            break
    # What tox installs besides: extras that the tests need of the project.
    found.extras = list(dict.fromkeys([*found.extras, *tox.extras]))
    found.has_tests = bool(tree.matching(*_TEST_FILES))
    found.paths = _paths(tree, pyproject, tox)
    found.names_pytest = _names_pytest(tree, pyproject, found)
    found.can_report = not any("no:junitxml" in tree.text(file) for file in _CONFIGURES_PYTEST)
    return found


test_needs.__test__ = False  # type: ignore[attr-defined]


def _candidates(tree: Tree, pyproject: dict[str, Any], tox: _Tox) -> Iterator[TestNeeds]:
    yield _named(tree, pyproject, _FOR_TESTS)
    yield _listed(tree, _FILES_FOR_TESTS)
    yield tox.needs()
    yield _hatch(pyproject)
    yield _named(tree, pyproject, _FOR_DEVELOPERS)
    yield _listed(tree, _FILES_FOR_DEVELOPERS)


def _named(tree: Tree, pyproject: dict[str, Any], names: tuple[str, ...]) -> TestNeeds:
    """The first group with one of the names, or the first extra."""
    groups = table(pyproject, "dependency-groups")
    if group := next((name for name in names if name in groups), ""):
        return TestNeeds(groups=[group])
    extras = dict(table(pyproject, "project", "optional-dependencies"))
    cfg = tree.ini("setup.cfg")
    if cfg.has_section("options.extras_require"):
        extras |= dict(cfg.items("options.extras_require"))
    extra = next((name for name in names if name in extras), "")
    if not extra and re.search(r"\bextras_require\b", tree.text("setup.py")):
        quoted = "|".join(names)
        written = re.search(rf"""["']({quoted})["']\s*:""", tree.text("setup.py"))
        extra = written[1] if written else ""
    return TestNeeds(extras=[extra] if extra else [])


def _listed(tree: Tree, files: tuple[str, ...]) -> TestNeeds:
    file = tree.first(*files)
    return TestNeeds(files=[file] if file else [])


def _hatch(pyproject: dict[str, Any]) -> TestNeeds:
    envs = table(pyproject, "tool", "hatch", "envs")
    for name in ("hatch-test", *_FOR_TESTS, "default"):
        env = table(envs, name)
        literal = strings(env, "dependencies") + strings(env, "extra-dependencies")
        extras = strings(env, "features")
        if literal or extras:
            return TestNeeds(literal=literal, extras=extras)
    return TestNeeds()


class _Tox:
    """What tox's configuration says of its test environment, in either of its forms."""

    def __init__(self, tree: Tree, pyproject: dict[str, Any]) -> None:
        legacy = table(pyproject, "tool", "tox").get("legacy_tox_ini")
        self._ini = parse_ini(legacy) if isinstance(legacy, str) else tree.ini("tox.ini")
        self._table = table(pyproject, "tool", "tox", "env_run_base")
        self.extras = [*strings(self._table, "extras"), *self._words("extras")]

    def needs(self) -> TestNeeds:
        needs = TestNeeds(groups=strings(self._table, "dependency_groups"))
        needs.groups += self._words("dependency_groups")
        for line in [*strings(self._table, "deps"), *self._lines("deps")]:
            line = line.replace("{toxinidir}/", "").replace("{tox_root}/", "")
            factor = re.match(r"^[\w{},!-]+:\s+", line)
            if factor or "{" in line:
                needs.notes.append(f"tox.ini: deps: was not read: {line}")
            elif file := re.match(r"^(?:-r|--requirement)[ =]*(\S+)", line):
                needs.files.append(file[1].removeprefix("./"))
            elif not line.startswith("-"):
                needs.literal.append(line)
        return needs

    def pytest_args(self) -> list[str] | None:
        """The arguments of its call of pytest; None if there is none."""
        commands = [*self._lines("commands")]
        given = self._table.get("commands")
        for one in given if isinstance(given, list) else []:
            words = [word for word in one if isinstance(word, str)] if isinstance(one, list) else []
            commands.append(" ".join(words))
        for command in commands:
            if found := re.search(r"(?:^|\s)(?:py\.?test)\b(.*)", command):
                text = re.sub(r"\{posargs:?([^}]*)\}", r"\1", found[1])
                try:
                    return shlex.split(text)
                except ValueError:
                    return None
        return None

    def _words(self, key: str) -> list[str]:
        found = re.split(r"[\s,]+", self._ini.get("testenv", key, fallback="") or "")
        return [word for word in found if word and "{" not in word]

    def _lines(self, key: str) -> list[str]:
        text = self._ini.get("testenv", key, fallback="") or ""
        joined = re.sub(r"\\\n\s*", " ", text)
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def _paths(tree: Tree, pyproject: dict[str, Any], tox: _Tox) -> list[str]:
    """Where the tests are, if pytest has to be told."""
    if _has_testpaths(tree, pyproject):
        return []
    args = tox.pytest_args() or []
    named = [arg for arg in args if arg in tree or tree.has_directory(arg.rstrip("/"))]
    if named:
        return named
    return [one for one in _DIRECTORIES if tree.matching(f"{one}/*test*.py")][:1]


def _has_testpaths(tree: Tree, pyproject: dict[str, Any]) -> bool:
    if "testpaths" in table(pyproject, "tool", "pytest", "ini_options"):
        return True
    if "testpaths" in table(pyproject, "tool", "pytest"):
        return True
    ini: list[tuple[ConfigParser, str]] = [
        (tree.ini("pytest.ini"), "pytest"),
        (tree.ini("tox.ini"), "pytest"),
        (tree.ini("setup.cfg"), "tool:pytest"),
    ]
    return any(parser.has_option(section, "testpaths") for parser, section in ini)


def _names_pytest(tree: Tree, pyproject: dict[str, Any], needs: TestNeeds) -> bool:
    listed = [file for path in needs.files for file in requirements(tree, path).files]
    texts = [*needs.literal, *(tree.text(file) for file in listed)]
    for extra in needs.extras:
        texts += strings(pyproject, "project", "optional-dependencies", extra)
        texts.append(tree.ini("setup.cfg").get("options.extras_require", extra, fallback="") or "")
    if needs.groups:
        # A group may include others.
        groups = table(pyproject, "dependency-groups")
        texts += [text for group in groups for text in strings(groups, group)]
    return any(re.search(r"(^|\n)\s*pytest\b(?!-)", text) for text in texts)
