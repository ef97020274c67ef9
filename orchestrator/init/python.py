"""Python projects.

The dependencies are installed into a virtual environment, without the project: so it is made again
only when the files change that name them. The test job then installs the project as it is, without
a network, and the tests find its metadata and its compiled parts. The environment looks for the
project where that job puts it, ahead of everything else: also in processes that tests start with a
`PYTHONPATH` of their own, and if a dependency needs a released version (pytest needs pluggy).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from orchestrator.init.findings import (
    DEPS,
    REPORT,
    REPORT_PATH,
    TEST,
    TOOLCHAIN,
    Findings,
    Job,
    Value,
    apt,
    mount_of,
    output_of,
    script,
    toolchain,
)
from orchestrator.init.python_files import declared, requirements, static_lists
from orchestrator.init.python_tests import TestNeeds, test_needs
from orchestrator.init.tree import Tree, strings, table

VENV, SITE = "/venv", "/tmp/site"
_LISTS = ("requirements.txt", "requirements/base.txt", "requirements/main.txt")
_SETUPTOOLS = ["setuptools", "wheel"]
_SCM = re.compile(r"\b(setuptools[-_]scm|hatch[-_]vcs|setuptools[-_]git|vcs[-_]versioning)\b")
_RUST = re.compile(r"^(maturin|setuptools[-_]rust)\b")
_COMPILED = re.compile(r"\b(ext_modules|cythonize|cffi_modules|Extension)\b")
_COMPILES = re.compile(
    r"^(cython|pybind11|cffi|scikit-build|scikit-build-core|meson-python)\b", re.I
)


@dataclass
class _Install:
    """What goes into the environment: arguments of `uv pip install`, and the files it reads."""

    args: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)  # before it
    literal: list[str] = field(default_factory=list)  # copied from the project's files
    notes: list[str] = field(default_factory=list)
    whole: bool = False  # it needs all of the tree


def python(tree: Tree) -> Findings | None:
    """The jobs of a Python project, None if it is none."""
    pyproject = tree.toml("pyproject.toml")
    lists = tree.matching("*requirements*.txt")
    packaged = any(key in pyproject for key in ("project", "build-system"))
    packaged = packaged or "poetry" in table(pyproject, "tool")
    setup = tree.first("setup.py", "setup.cfg")
    if setup == "setup.cfg" and not tree.ini(setup).has_section("metadata"):
        setup = ""
    if not packaged and not setup and not lists and not tree.first("tox.ini", "noxfile.py"):
        return None
    needs = test_needs(tree, pyproject)
    build = _build_requires(pyproject) if packaged or setup else []
    compiled = _is_compiled(tree, build)
    deps = _deps(tree, pyproject, needs, build, setup, compiled)
    jobs = [toolchain("Python's headers", apt("python3-dev"))] if compiled else []
    versioned = bool(_SCM.search(" ".join(build) + tree.text("setup.py") + tree.text("setup.cfg")))
    git = versioned and tree.has_commit
    test = _test(tree, needs, build, compiled, pretend=versioned and not git)
    notes = [*deps.notes, *needs.notes, *_notes(tree, pyproject, build, needs)]
    jobs += [_deps_job(deps, build, compiled), test]
    return Findings("Python", tuple(jobs), tuple(dict.fromkeys(notes)), git)


def _deps(
    tree: Tree,
    pyproject: dict[str, object],
    needs: TestNeeds,
    build: list[str],
    setup: str,
    compiled: bool,
) -> _Install:
    deps = _Install(literal=[*needs.literal, *build], notes=[])
    project = table(pyproject, "project")
    poetry = table(pyproject, "tool", "poetry")
    if "uv.lock" in tree:
        flags = [f"--group {shlex.quote(one)}" for one in needs.groups]
        flags += [f"--extra {shlex.quote(one)}" for one in needs.extras]
        sync = (
            "uv sync --frozen --inexact --no-install-project --no-default-groups"
            f" {_folded([*flags, f'--python {VENV}/bin/python'])}"
        )
        deps.lines += [f"export UV_PROJECT_ENVIRONMENT={VENV}", sync]
        deps.files += ["pyproject.toml", "uv.lock"]
        if table(pyproject, "tool", "uv", "workspace"):
            deps.files.append("**/pyproject.toml")
    elif project:
        deps.files.append("pyproject.toml")
        deps.args += ["-r pyproject.toml"]
        deps.args += [f"--group {shlex.quote(one)}" for one in needs.groups]
        deps.args += [f"--extra {shlex.quote(one)}" for one in needs.extras]
        if "dependencies" in strings(project, "dynamic"):
            _dynamic(tree, pyproject, deps)
    elif "dependencies" in poetry or "group" in poetry:
        deps.lines += [
            "python3 -m venv /tmp/poetry",
            "/tmp/poetry/bin/pip install -q poetry",
            f"VIRTUAL_ENV={VENV} /tmp/poetry/bin/poetry install --no-root --no-interaction",
        ]
        deps.files += [one for one in ("pyproject.toml", "poetry.lock") if one in tree]
    elif setup:
        _of_setup(tree, needs, deps)
    if not project and needs.groups and "uv.lock" not in tree:
        deps.files.append("pyproject.toml")
        deps.args += [f"--group {shlex.quote(one)}" for one in needs.groups]
    wanted = list(needs.files)
    if not project and not poetry and not setup:
        wanted = [*(one for one in _LISTS if one in tree), *wanted]
    for path in dict.fromkeys(wanted):
        _requirements(tree, path, deps, has_project=bool(project))
    if not needs.names_pytest and needs.has_tests:
        deps.literal.append("pytest")
    return deps


def _of_setup(tree: Tree, needs: TestNeeds, deps: _Install) -> None:
    """The dependencies in `setup.py` or `setup.cfg`: copied if they are written out there."""
    found = declared(tree, needs.extras)
    if found is None:
        deps.whole = True
        deps.args.append("-r setup.py")
        deps.notes.append(
            "setup.py: computes what it depends on, which is installed again when any file changes;"
            " `sources` can name the files that it reads"
        )
        return
    deps.literal = [*found, *deps.literal]
    if found:
        deps.notes.append("setup.py or setup.cfg: its dependencies were copied into the job `deps`")


def _dynamic(tree: Tree, pyproject: dict[str, object], deps: _Install) -> None:
    dynamic = table(pyproject, "tool", "setuptools", "dynamic", "dependencies")
    named = dynamic.get("file")
    files = [named] if isinstance(named, str) else strings(dynamic, "file")
    if files and all(file in tree for file in files):
        # uv would build the project to find out what is in these files.
        deps.args = [arg for arg in deps.args if arg != "-r pyproject.toml"]
        for file in files:
            _requirements(tree, file, deps, has_project=True)
        return
    deps.whole = True
    deps.notes.append(
        "pyproject.toml: its dependencies are dynamic, so they are installed again when any file"
        " changes; `sources` can name the files that they come from"
    )


def _requirements(tree: Tree, path: str, deps: _Install, *, has_project: bool) -> None:
    """Add a list of requirements, without the project itself."""
    found = requirements(tree, path)
    deps.files += found.files
    for extra in found.extras:
        literal = static_lists(tree, (extra,))
        if has_project:
            deps.args.append(f"--extra {shlex.quote(extra)}")
        elif literal is not None:
            deps.literal += literal
    if not found.local:
        deps.args.append(f"-r {shlex.quote(path)}")
        return
    # Without the lines for the project itself, which is not here; what it includes is.
    copy = f"/tmp/{path.replace('/', '-')}"
    directory = f"/workspace/snapshot/{path}".rpartition("/")[0]
    edit = rf"/^(-e *|--editable[ =]*)?\./d; s#^(-[rc]) *#\1 {directory}/#"
    deps.lines.append(f"sed -E {shlex.quote(edit)} {shlex.quote(path)} > {shlex.quote(copy)}")
    deps.args.append(f"-r {shlex.quote(copy)}")


def _deps_job(deps: _Install, build: list[str], compiled: bool) -> Job:
    literal = [shlex.quote(one) for one in dict.fromkeys(deps.literal)]
    args = [*dict.fromkeys(deps.args), *literal]
    lines = [f"python3 -m venv {VENV}", f"PATH={VENV}/bin:$PATH", "pip install -q uv", *deps.lines]
    if args:
        lines.append(f"uv pip install --python {VENV}/bin/python {_folded(args)}")
    if build:
        lines.append(f"echo \"import sys; sys.path.insert(0, '{SITE}')\" > /tmp/project.pth")
        lines.append(f"cp /tmp/project.pth {VENV}/lib/python3*/site-packages")
    keys: dict[str, Value] = {"image": output_of(TOOLCHAIN)} if compiled else {}
    keys |= {"command": script(lines), "egress": ["*"]}
    if not deps.whole:
        keys["sources"] = [*dict.fromkeys(deps.files)]
    else:
        keys["scratch"] = True
        keys["env"] = {"SETUPTOOLS_SCM_PRETEND_VERSION": "0.0.0"}
    keys["output"] = VENV
    return Job(
        DEPS,
        "What the project and its tests need, in a virtual environment, without the project itself."
        + ("" if deps.whole else " Made again only when these files change."),
        keys,
    )


def _folded(args: list[str]) -> str:
    """The arguments on lines of their own if one line would be long."""
    line = " ".join(args)
    return line if len(line) <= 60 else "\\\n    " + " \\\n    ".join(args)


def _test(
    tree: Tree,
    needs: TestNeeds,
    build: list[str],
    compiled: bool,
    *,
    pretend: bool,
) -> Job:
    keys: dict[str, Value] = {"image": output_of(TOOLCHAIN)} if compiled else {}
    keys["mounts"] = mount_of(DEPS, VENV)
    lines = [f"PATH={SITE}/bin:{VENV}/bin:$PATH" if build else f"PATH={VENV}/bin:$PATH"]
    if build:
        lines.append(f"pip install -q --no-index --no-deps --no-build-isolation --target {SITE} .")
    if needs.has_tests:
        report = [f"--junitxml={REPORT_PATH}"] if needs.can_report else []
        lines.append(" ".join(["python -m pytest", *report, *map(shlex.quote, needs.paths)]))
        first = "Installs the project as it is, offline, and runs its" if build else "Runs the"
        comment = f"{first} tests in a writable copy."
    else:
        lines.append("python -m compileall -q .")
        comment = "Every module compiles; no tests were found."
    keys["command"] = script(lines)
    if needs.has_tests and needs.can_report:
        keys["junit"] = [REPORT]
    keys["scratch"] = True
    env: dict[str, str] = {}
    if pretend:
        env["SETUPTOOLS_SCM_PRETEND_VERSION"] = "0.0.0"  # there is no .git to ask
    if any(re.match(r"pbr\b", one) for one in build) or "pbr" in tree.text("setup.py"):
        env["PBR_VERSION"] = "0.0.0"
    if any(one.startswith("poetry-dynamic-versioning") for one in build):
        env["POETRY_DYNAMIC_VERSIONING_BYPASS"] = "0.0.0"
    if env:
        keys["env"] = env
    return Job(TEST, comment, keys)


def _build_requires(pyproject: dict[str, object]) -> list[str]:
    """What builds the project; setuptools if it does not say."""
    found = strings(pyproject, "build-system", "requires")
    if not found:
        return list(_SETUPTOOLS)
    # setuptools of the time before 70.1 needs wheel for one.
    needs_wheel = any(re.match(r"setuptools\b", one) for one in found)
    return [*found, *(["wheel"] if needs_wheel and "wheel" not in found else [])]


def _is_compiled(tree: Tree, build: list[str]) -> bool:
    return bool(_COMPILED.search(tree.text("setup.py"))) or any(map(_COMPILES.match, build))


def _notes(
    tree: Tree, pyproject: dict[str, object], build: list[str], needs: TestNeeds
) -> list[str]:
    notes = []
    wanted = table(pyproject, "project").get("requires-python")
    if isinstance(wanted, str) and re.search(r">=? *3\.(1[2-9]|[2-9][0-9])", wanted):
        notes.append(f"pyproject.toml: wants Python {wanted}; Debian's may be older")
    if any(map(_RUST.match, build)):
        notes.append("pyproject.toml: its build needs Rust: install cargo in a job for the image")
    if "noxfile.py" in tree:
        notes.append("noxfile.py: its sessions are Python code, and were not read")
    if not needs.has_tests:
        notes.append("there are no files test_*.py, so the job only compiles")
    return notes
