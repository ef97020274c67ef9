"""Trees of projects, reduced to what init looks at; each is like one that exists."""

from __future__ import annotations

_TESTS = {"tests/test_it.py": "", "src/it/__init__.py": ""}
_BUILD = (
    '[build-system]\nrequires = ["hatchling", "hatch-vcs"]\nbuild-backend = "hatchling.build"\n'
)
_PROJECT = '[project]\nname = "it"\ndynamic = ["version"]\ndependencies = ["idna"]\n'
GROUP = '[dependency-groups]\ntests = ["pytest>=8", "hypothesis"]\ndev = ["it[x]"]\n'
EXTRA = '[project.optional-dependencies]\nsocks = ["PySocks"]\ntest = ["pytest"]\n'

LOCKED = {"pyproject.toml": _BUILD + _PROJECT + GROUP, "uv.lock": "", **_TESTS}
GROUPED = {"pyproject.toml": _BUILD + _PROJECT + GROUP, **_TESTS}
EXTRAS = {"pyproject.toml": _BUILD + _PROJECT + EXTRA, **_TESTS}
SETUP = {
    "setup.py": "from setuptools import setup\nrequires = ['idna>=2']\n"
    "setup(name='it', install_requires=requires, extras_require={'socks': ['PySocks'], 'x': []})\n",
    "tox.ini": "[testenv]\ndeps =\n    -r{toxinidir}/test-requirements.txt  # all\n"
    "commands = pytest --cov=it {posargs:tests}\n",
    "test-requirements.txt": "-e .[socks]\npytest\n-r more.txt\n",
    "more.txt": "trustme\n",
    **_TESTS,
}
COMPUTED = {"setup.py": "setup(install_requires=open('x').read().split())", **_TESTS}
COMPILED = {"setup.py": "setup(ext_modules=[Extension('it', ['it.c'])])", **_TESTS}
POETRY = {
    "pyproject.toml": "[tool.poetry]\nname = 'it'\n[tool.poetry.dependencies]\nidna = '*'\n"
    "[tool.poetry.group.dev.dependencies]\npytest = '*'\n"
    '[build-system]\nrequires = ["poetry-core"]\n',
    "poetry.lock": "",
    **_TESTS,
}
LISTED = {"requirements.txt": "flask\n", "app.py": "", "test_app.py": ""}
NPM = {
    "package.json": '{"scripts": {"test": "jest"}, "devDependencies": {"jest": "1"}}',
    "package-lock.json": "{}",
}
NPM_ALONE = {"package.json": '{"scripts": {"test": "node --test"}}'}
PNPM = {
    "package.json": '{"scripts": {"test": "vitest"}, "dependencies": {"x": "1"}}',
    "pnpm-lock.yaml": "",
}
CRATE = {
    "Cargo.toml": '[package]\nname = "it"\n[dependencies]\nlibc = "0.2"\n[[bench]]\nname = "fast"\n',
    "Cargo.lock": "",
    "src/lib.rs": "",
}
CRATE_ALONE = {"Cargo.toml": '[package]\nname = "it"\n', "src/lib.rs": ""}
GO = {"go.mod": "module it\n\ngo 1.19\n\nrequire example.org/x v1.0.0\n", "go.sum": "", "a.go": ""}
CMAKE = {
    "CMakeLists.txt": "project(it CXX)\nenable_testing()\nfind_package(Threads)\nfind_package(Boost)\n",
    "Makefile": "all:\n",
}
AUTOTOOLS = {
    "configure.ac": "AC_INIT([it], [1])\nPKG_CHECK_MODULES([Z], [zlib >= 1])\n",
    "Makefile.am": "",
}
MAKE = {"Makefile": "all: it\ntest: all\n\t./it\nCC := gcc\n"}
BOTH = {**GROUPED, **NPM}

ALL = {n: one for n, one in globals().items() if n[0].isupper() and isinstance(one, dict)}
