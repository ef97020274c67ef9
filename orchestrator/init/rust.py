"""Projects with a `Cargo.toml`."""

from __future__ import annotations

import shlex
from typing import Any

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
    script,
    toolchain,
)
from orchestrator.init.tree import Tree, table

_VENDOR = "/mnt/vendor"
_DIRECTORIES = {"bin": "src/bin", "bench": "benches", "example": "examples", "test": "tests"}
_NEEDED = ("dependencies", "dev-dependencies", "build-dependencies")


def rust(tree: Tree) -> Findings | None:
    """The jobs of a Rust project, None if it is none."""
    if "Cargo.toml" not in tree:
        return None
    manifest = tree.toml("Cargo.toml")
    members = "workspace" in manifest
    # Debian has a newer Rust for its browsers than the one for everybody, where it needs that.
    install = f"{apt('cargo-web', 'rustc-web')} || {apt('cargo', 'rustc')}"
    jobs = [toolchain("Rust", install)]
    flags = " --workspace" if members else ""
    locked = "Cargo.lock" in tree
    test: dict[str, Value] = {"image": output_of(TOOLCHAIN)}
    command = f"cargo test{flags}{' --locked' if locked else ''} --offline"
    if members or _has_deps(manifest):
        jobs.append(_deps(manifest, locked, members))
        test["mounts"] = mount_of(DEPS, _VENDOR)
        config = f'"{_VENDOR}"'
        command += (
            " \\\n    --config 'source.crates-io.replace-with=\"vendored\"'"
            f" \\\n    --config 'source.vendored.directory={config}'"
        )
    test |= {"command": command, "scratch": True}
    jobs.append(
        Job(TEST, "The tests, offline; what they write next to the sources is dropped.", test)
    )
    return Findings("Rust", tuple(jobs), tuple(_notes(tree, manifest, locked)))


def _has_deps(manifest: dict[str, Any]) -> bool:
    targets = table(manifest, "target").values()
    return any(table(one, key) for one in (manifest, *targets) for key in _NEEDED)


def _deps(manifest: dict[str, Any], locked: bool, members: bool) -> Job:
    sources = [*(["Cargo.lock"] if locked else []), "Cargo.toml"]
    lines = []
    if members:
        sources.append("**/Cargo.toml")
        lines.append("find . -name Cargo.toml -execdir sh -c 'mkdir -p src; touch src/lib.rs' ';'")
    stubs = _targets(manifest)
    if "package" in manifest:
        directories = sorted({path.rpartition("/")[0] or "." for path in stubs})
        lines.append(f"mkdir -p {shlex.join(directories)}")
        lines.append(f"touch {shlex.join(stubs)}")
    lines.append(f"cargo vendor{' --locked' if locked else ''} /artifacts/vendor")
    return Job(
        DEPS,
        "The crates; fetched again only when these files change. cargo wants to see a source file"
        " of each target.",
        {
            "image": output_of(TOOLCHAIN),
            "command": script(lines),
            "egress": ["*"],
            "sources": [*sources],
            "scratch": True,
            "output": "/artifacts/vendor",
        },
    )


def _targets(manifest: dict[str, Any]) -> list[str]:
    """The source files of the targets that the manifest names, and of a library."""
    paths = [table(manifest, "lib").get("path", "src/lib.rs")]
    for kind, directory in _DIRECTORIES.items():
        given = manifest.get(kind)
        for target in given if isinstance(given, list) else []:
            name = table(target).get("name", "main")
            paths.append(table(target).get("path", f"{directory}/{name}.rs"))
    build = table(manifest, "package").get("build")
    paths.append(build if isinstance(build, str) else "")
    return sorted({path for path in paths if _is_inside(path)})


def _is_inside(path: object) -> bool:
    inside = isinstance(path, str) and path != "" and not path.startswith(("/", "-"))
    return inside and ".." not in str(path).split("/") and str(path).isprintable()


def _notes(tree: Tree, manifest: dict[str, Any], locked: bool) -> list[str]:
    notes = []
    if not locked and _has_deps(manifest):
        notes.append("Cargo.toml: no Cargo.lock, so the newest crates are fetched")
    for file in ("rust-toolchain.toml", "rust-toolchain"):
        if file in tree:
            notes.append(f"{file}: the toolchain is Debian's, whatever this file says")
    wanted = table(manifest, "package").get("rust-version")
    if isinstance(wanted, str):
        notes.append(f"Cargo.toml: wants Rust {wanted}; Debian's may be older")
    return notes
