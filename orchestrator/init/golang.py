"""Projects with a `go.mod`."""

from __future__ import annotations

import re

from orchestrator.init.findings import (
    DEPS,
    TEST,
    TOOLCHAIN,
    Findings,
    Job,
    Value,
    apt,
    mount_of,
    output_of,
    toolchain,
)
from orchestrator.init.tree import Tree

_CACHE = "/mnt/gomod"


def golang(tree: Tree) -> Findings | None:
    """The jobs of a Go project, None if it is none."""
    if "go.mod" not in tree:
        return None
    text = tree.text("go.mod")
    jobs = [toolchain("Go", apt("golang-go"))]
    test: dict[str, Value] = {"image": output_of(TOOLCHAIN), "command": "go test ./..."}
    if re.search(r"^require\b", text, re.MULTILINE) and not tree.has_directory("vendor"):
        jobs.append(
            Job(
                DEPS,
                "The modules; downloaded again only when these files change.",
                {
                    "image": output_of(TOOLCHAIN),
                    "command": "go mod download",
                    "env": {"GOMODCACHE": "/artifacts/gomod"},
                    "egress": ["*"],
                    "sources": [name for name in ("go.mod", "go.sum") if name in tree],
                    "output": "/artifacts/gomod",
                },
            )
        )
        test["mounts"] = mount_of(DEPS, _CACHE)
        test["env"] = {"GOMODCACHE": _CACHE, "GOPROXY": "off", "GOFLAGS": "-mod=readonly"}
    test["scratch"] = True
    jobs.append(Job(TEST, "The tests of all packages, offline.", test))
    notes = []
    if wanted := re.search(r"^go +([0-9.]+)", text, re.MULTILINE):
        notes.append(f"go.mod: wants Go {wanted[1]}; Debian's may be older")
    return Findings("Go", tuple(jobs), tuple(notes))
