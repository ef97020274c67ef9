"""Projects with a `package.json`."""

from __future__ import annotations

import re

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
from orchestrator.init.tree import Tree, strings, table

_NO_TEST = "no test specified"
_WORK = "/artifacts/deps"
# lock file: (what installs it, the Debian or npm package of that)
_LOCKS = {
    "pnpm-lock.yaml": ("pnpm install --frozen-lockfile", "pnpm"),
    "yarn.lock": ("yarn install --frozen-lockfile", "yarn"),
    "npm-shrinkwrap.json": ("npm ci", ""),
    "package-lock.json": ("npm ci", ""),
}
# For people and for pikaci: naming one reporter turns the other one off.
_REPORTERS = (
    "--test-reporter=spec --test-reporter-destination=stdout \\\n"
    f"    --test-reporter=junit --test-reporter-destination={REPORT_PATH}"
)
_NEEDED = ("dependencies", "devDependencies", "optionalDependencies", "peerDependencies")


def node(tree: Tree) -> Findings | None:
    """The jobs of a Node.js project, None if it is none."""
    if "package.json" not in tree:
        return None
    package = tree.json("package.json")
    scripts = table(package, "scripts")
    lock = tree.first(*_LOCKS)
    install, manager = _LOCKS.get(lock, ("npm install --no-package-lock", ""))
    has_deps = any(table(package, key) for key in _NEEDED)
    jobs = [_toolchain(manager)]
    test: dict[str, Value] = {"image": output_of(TOOLCHAIN)}
    if has_deps:
        jobs.append(_deps(tree, lock, install))
        test["mounts"] = mount_of(DEPS, "/workspace/node_modules")
    script, comment = _script(tree, scripts, manager or "npm")
    notes = _notes(package, lock, script, has_deps)
    if script:
        test |= {"command": script}
        if _REPORTERS in script:
            test["junit"] = [REPORT]
        test["scratch"] = True
        jobs.append(Job(TEST, comment, test))
    return Findings("Node.js", tuple(jobs) if script else (), tuple(notes))


def _toolchain(manager: str) -> Job:
    lines = [apt("nodejs", "npm")]
    if manager:
        lines.append(f"npm install --global {manager}")
    return toolchain("Node.js", "\n".join(lines))


def _deps(tree: Tree, lock: str, install: str) -> Job:
    files = [name for name in ("package.json", lock, ".npmrc", ".yarnrc") if name in tree]
    lines = [f"mkdir -p {_WORK}", f"cp {' '.join(files)} {_WORK}", f"cd {_WORK}", install]
    return Job(
        DEPS,
        f"The packages of {lock or 'package.json'}; installed again only when these files change.",
        {
            "image": output_of(TOOLCHAIN),
            "command": script(lines),
            "egress": ["*"],
            "sources": [*files],
            "output": f"{_WORK}/node_modules",
        },
    )


def _script(tree: Tree, scripts: dict[str, object], manager: str) -> tuple[str, str]:
    """The command of the test job, and a comment for it; "" if there is nothing to run."""
    test = scripts.get("test")
    if isinstance(test, str) and _NO_TEST not in test:
        # npm hands on what follows `--`; other runners of tests have no reporter of their own.
        reports = manager == "npm" and test.strip() == "node --test"
        more = f" -- \\\n    {_REPORTERS}" if reports else ""
        return f"{manager} test{more}", "The project's own script `test`, in a writable copy."
    if tree.matching("*.test.js", "*.test.mjs", "*.test.cjs", "test/*.js", "test/*.mjs"):
        return (
            f"node --test \\\n    {_REPORTERS}",
            "The tests that Node.js finds: package.json has no script for them.",
        )
    if isinstance(scripts.get("build"), str):
        return f"{manager} run build", "It builds; package.json has no script `test`."
    return "", ""


def _notes(package: dict[str, object], lock: str, script: str, has_deps: bool) -> list[str]:
    notes = []
    if not script:
        notes.append('package.json: has no script "test", so there is no job for it')
    if package.get("workspaces") and has_deps:
        notes.append("package.json: `workspaces`: only the packages of its root are installed")
    if has_deps and not lock:
        notes.append("package.json: no lock file, so the newest packages are installed")
    wanted = table(package, "engines").get("node")
    if isinstance(wanted, str) and re.search(r"(2[0-9]|3[0-9])", wanted):
        notes.append(f"package.json: wants Node.js {wanted}; Debian's may be older")
    if strings(package, "os") and "linux" not in strings(package, "os"):
        notes.append("package.json: `os` does not name linux")
    return notes
