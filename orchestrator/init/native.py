"""C and C++ projects: CMake, autotools, or a plain makefile."""

from __future__ import annotations

import re

from orchestrator.init.findings import (
    REPORT,
    REPORT_PATH,
    TEST,
    TOOLCHAIN,
    Findings,
    Job,
    Value,
    apt,
    output_of,
    script,
    toolchain,
)
from orchestrator.init.tree import Tree

_FETCHES = re.compile(r"\b(FetchContent_\w+|ExternalProject_Add|CPMAddPackage)\b", re.IGNORECASE)
_TESTS = re.compile(r"\b(enable_testing|add_test|include\s*\(\s*CTest)\b", re.IGNORECASE)
_PACKAGES = re.compile(r"\bfind_package\s*\(\s*(\w+)", re.IGNORECASE)
# What the image has, or what no package is needed for.
_THERE = {"cmakepackageconfighelpers", "git", "python3", "python", "threads", "pkgconfig"}
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
_JOBS = '--jobs="$(nproc)"'


def cmake(tree: Tree) -> Findings | None:
    """The job of a project with a `CMakeLists.txt`, None if it has none."""
    if "CMakeLists.txt" not in tree:
        return None
    text = "\n".join(tree.text(path) for path in tree.matching("*CMakeLists.txt"))
    lines = ["cmake -S . -B /tmp/build", f"cmake --build /tmp/build --parallel {'$(nproc)'}"]
    notes = []
    keys: dict[str, Value] = {}
    tested = bool(_TESTS.search(text))
    if tested:
        lines.append(
            f"ctest --test-dir /tmp/build --output-on-failure --output-junit {REPORT_PATH}"
        )
    else:
        notes.append("CMakeLists.txt: no tests were found in it, so the job only builds")
    keys["command"] = script(lines)
    if tested:
        keys["junit"] = [REPORT]
    if fetches := _FETCHES.search(text):
        keys["egress"] = ["*"]
        notes.append(f"CMakeLists.txt: {fetches[1]} may load from the network in every run")
    missing = sorted({name for name in _PACKAGES.findall(text) if name.lower() not in _THERE})
    if missing:
        notes.append(
            f"CMakeLists.txt: find_package of {', '.join(missing[:8])}: if a package of Debian is"
            ' needed, install it in a job with `output = "image"`'
        )
    # Many tests write beside their data.
    keys["scratch"] = True
    job = Job(TEST, "Configures, builds and tests; the sources are in a writable copy.", keys)
    return Findings("CMake", (job,), tuple(notes))


def autotools(tree: Tree) -> Findings | None:
    """The jobs of a project with a `configure` or what makes one, None if it has none."""
    made = "configure" in tree
    if not made and not tree.first("configure.ac", "configure.in"):
        return None
    generator = tree.first("autogen.sh", "bootstrap", "bootstrap.sh")
    text = tree.text("configure.ac") + tree.text("configure.in")
    lines = [] if made else [f"sh ./{generator}" if generator else "autoreconf --install --force"]
    lines += ["./configure", f"make {_JOBS}", "make check"]
    # Beside a `configure` of its own, too: make runs them if that looks older than what it is from.
    tools = bool(text)
    packages = "autoconf autoconf-archive automake libtool gettext autopoint bison flex texinfo"
    test: dict[str, Value] = {"image": output_of(TOOLCHAIN)} if tools else {}
    # autogen.sh often runs configure too, and wants no arguments then.
    test |= {"command": script(lines), "scratch": True}
    if generator and not made:
        test["env"] = {"NOCONFIGURE": "1"}
    job = Job(TEST, "Configures, builds and tests in a writable copy.", test)
    notes = []
    if wanted := sorted(set(re.findall(r"PKG_CHECK_MODULES\(\[?\w+\]?, *\[?([\w.+-]+)", text))):
        notes.append(
            f"configure.ac: wants {', '.join(wanted[:8])}: install the packages of Debian that have"
            ' them in a job with `output = "image"`'
        )
    image = [toolchain("autotools", apt(packages))] if tools else []
    return Findings("autotools", (*image, job), tuple(notes))


def make(tree: Tree) -> Findings | None:
    """The job of a project with a makefile, None if it has none."""
    file = tree.first(*_MAKEFILES)
    if not file:
        return None
    targets = set(re.findall(r"^([A-Za-z][\w-]*)\s*:(?!=)", tree.text(file), re.MULTILINE))
    target = next((name for name in ("check", "test", "tests") if name in targets), "")
    notes = [] if target else [f"{file}: no target `test` or `check`, so the job only builds"]
    lines = [f"make {_JOBS}", *([f"make {target}"] if target else [])]
    if "all" not in targets and target:
        lines = [f"make {target}"]
    job = Job(TEST, f"What {file} does, in a writable copy.",
              {"command": script(lines), "scratch": True})  # fmt: skip
    return Findings("make", (job,), tuple(notes))
