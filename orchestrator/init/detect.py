"""Finds out what a project is made with, and the jobs that test it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.init.findings import DEPS, TEST, TOOLCHAIN, Findings, Job, Value
from orchestrator.init.golang import golang
from orchestrator.init.native import autotools, cmake, make
from orchestrator.init.node import node
from orchestrator.init.python import python
from orchestrator.init.rust import rust
from orchestrator.init.tree import Tree

_LANGUAGES = (python, node, rust, golang)
# The first that is there: the others often only serve it.
_BUILDS = (cmake, autotools, make)
# What init does not know how to test.
_OTHERS = {
    "BUILD.bazel": "Bazel",
    "Gemfile": "Ruby",
    "Package.swift": "Swift",
    "build.gradle": "Gradle",
    "build.gradle.kts": "Gradle",
    "composer.json": "PHP",
    "deno.json": "Deno",
    "flake.nix": "Nix",
    "meson.build": "Meson",
    "mix.exs": "Elixir",
    "pom.xml": "Maven",
    "stack.yaml": "Haskell",
}


def detect(tree: Tree) -> Findings:
    """The jobs for all that was found; there are none if nothing was.

    With several languages, the names of the jobs begin with the language's.
    """
    found = [one for language in _LANGUAGES if (one := language(tree)) is not None]
    if not any(one.jobs for one in found):
        found += [one for build in _BUILDS if (one := build(tree)) is not None][:1]
    if sum(bool(one.jobs) for one in found) > 1:
        found = [_prefixed(one) for one in found]
    jobs = tuple(job for one in found for job in one.jobs)
    mirrors = tree.host_has_mirrors and any("egress" in job.keys for job in jobs)
    notes = [note for one in found for note in one.notes]
    notes += [
        f"{file}: init does not know {what}" for file, what in _OTHERS.items() if file in tree
    ]
    return Findings(
        kind=" and ".join(one.kind for one in found if one.jobs),
        jobs=tuple(_with_mirrors(job) for job in jobs) if mirrors else jobs,
        notes=tuple(notes),
        git=any(one.git for one in found),
        mirrors=mirrors,
    )


def _with_mirrors(job: Job) -> Job:
    """The job with `host_mirrors` if it reaches the outside: without egress it would be refused."""
    if "egress" not in job.keys:
        return job
    keys: dict[str, Value] = {}
    for key, value in job.keys.items():
        keys[key] = value
        if key == "egress":
            keys["host_mirrors"] = True
    return replace(job, keys=keys)


def _prefixed(found: Findings) -> Findings:
    prefix = found.kind.lower().replace(".", "")

    def name(job: str) -> str:
        return f"{prefix}-{job}" if job in (TOOLCHAIN, DEPS, TEST) else job

    def value(given: Value) -> Value:
        if isinstance(given, dict) and "job" in given:
            return {"job": name(given["job"])}
        if isinstance(given, list):
            return [_renamed_mount(one, name) if isinstance(one, dict) else one for one in given]  # type: ignore[return-value]
        return given

    def renamed(job: Job) -> Job:
        keys = {key: value(given) for key, given in job.keys.items()}
        return Job(name(job.name), job.comment, keys)

    return replace(found, jobs=tuple(renamed(job) for job in found.jobs))


def _renamed_mount(mount: dict[str, object], name: Callable[[str], str]) -> dict[str, object]:
    source = mount.get("source")
    return {**mount, "source": {"job": name(source["job"])}} if isinstance(source, dict) else mount
