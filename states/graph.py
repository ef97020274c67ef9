"""Which jobs of a run need which others: for their outputs, or only for the order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from states.errors import SpecError
from states.mistakes import did_you_mean
from states.spec import IMAGE, JobSpec, Mount, OutputOf

# The keys whose value may be the output of another job, besides the sources of mounts.
_DIRECTORY_KEYS = ("workspace_deps", "workspace_build", "nix_store")


def inputs(spec: JobSpec) -> list[tuple[str, str]]:
    """Each key of a spec that stands for a job's output, with the name of that job."""
    keys = ("image", *_DIRECTORY_KEYS)
    named = [(key, value.job) for key in keys if isinstance(value := getattr(spec, key), OutputOf)]
    mounts = [
        (f"mounts[{index}].source", mount.source.job)
        for index, mount in enumerate(spec.mounts)
        if isinstance(mount.source, OutputOf)
    ]
    return named + mounts


def needed(spec: JobSpec) -> list[str]:
    """The names of the jobs that must pass before this one starts."""
    return list(dict.fromkeys([*(job for _, job in inputs(spec)), *spec.needs]))


def with_needed(specs: Mapping[str, JobSpec], names: Iterable[str]) -> list[str]:
    """These jobs and all that they need, directly or not; each after those that it needs.

    `specs` must have no `broken_references`.
    """
    found: dict[str, None] = {}
    for name in names:
        # Depth first, without recursion: a chain may be long.
        path = [(name, iter(needed(specs[name])))]
        while path:
            current, rest = path[-1]
            following = next((one for one in rest if one not in found), None)
            if following is None:
                found[current] = None
                path.pop()
            else:
                path.append((following, iter(needed(specs[following]))))
    return list(found)


def needed_by_none(specs: Mapping[str, JobSpec]) -> list[str]:
    """The names of the jobs that no other of these needs."""
    others = {name for spec in specs.values() for name in needed(spec)}
    return [name for name in specs if name not in others]


def resolved(spec: JobSpec, values: Mapping[str, str]) -> JobSpec:
    """The spec with a value for each output that it uses, by the name of its job.

    A tree is a directory of the host, an image a fingerprint. A missing value is told as such.
    """

    def of(output: OutputOf) -> str:
        return values.get(output.job, f"the output of {output.job}")

    changed = {
        key: of(value)
        for key in ("image", *_DIRECTORY_KEYS)
        if isinstance(value := getattr(spec, key), OutputOf)
    }
    mounts = tuple(
        Mount(of(mount.source), mount.path) if isinstance(mount.source, OutputOf) else mount
        for mount in spec.mounts
    )
    return msgspec.structs.replace(spec, mounts=mounts, **changed)


def broken_references(specs: Mapping[str, JobSpec]) -> Iterator[tuple[str, SpecError]]:
    """What is wrong with how the jobs of a run need each other, each with the job's name."""
    for name, spec in specs.items():
        for index, other in enumerate(spec.needs):
            yield from ((name, error) for error in _unknown(f"needs[{index}]", other, specs))
        for key, other in inputs(spec):
            yield from ((name, error) for error in _wrong_input(key, spec, other, specs))
    for cycle in _cycles(specs):
        line = " -> ".join([*cycle, cycle[0]])
        key = _key_that_names(cycle[0], specs[cycle[-1]])
        allowed = "jobs that do not wait for themselves"
        yield cycle[-1], SpecError(key, f"closes a cycle: {line}", allowed=allowed)


def _key_that_names(other: str, spec: JobSpec) -> str:
    named = [key for key, job in inputs(spec) if job == other]
    return named[0] if named else f"needs[{spec.needs.index(other)}]"


def _unknown(key: str, other: str, specs: Mapping[str, JobSpec]) -> Iterator[SpecError]:
    if other not in specs:
        near = did_you_mean(other, specs)
        most = ", ".join(list(specs)[:10])
        yield SpecError(
            key,
            f"names the job {other!r}, which does not exist{near}",
            allowed="" if near else most,
        )


def _wrong_input(
    key: str, spec: JobSpec, other: str, specs: Mapping[str, JobSpec]
) -> Iterator[SpecError]:
    unknown = list(_unknown(key, other, specs))
    yield from unknown
    if unknown:
        return
    producer = specs[other]
    if producer.output is None:
        yield SpecError(
            key,
            f"names the job {other!r}, which has no `output`",
            allowed='a job with `output = "/artifacts/NAME"` or `output = "image"`',
        )
    elif (key == "image") != (producer.output == IMAGE):
        there = "an image" if producer.output == IMAGE else "a directory"
        wanted = "an image" if key == "image" else "a directory"
        yield SpecError(key, f"names the job {other!r}, whose output is {there}", allowed=wanted)
    elif key == "image" and producer.instance_type is not spec.instance_type:
        yield SpecError(
            key,
            f"names the job {other!r}, whose image is for a {producer.instance_type}",
            allowed=f'instance_type = "{producer.instance_type}" in both jobs',
        )


def _cycles(specs: Mapping[str, JobSpec]) -> Iterator[list[str]]:
    """One cycle for each group of jobs that need each other."""
    done: set[str] = set()
    for start in specs:
        path: list[str] = []
        rest = [iter([start])]
        while rest:
            name = next((one for one in rest[-1] if one in specs and one not in done), None)
            if name is None:
                rest.pop()
                if path:
                    done.add(path.pop())
            elif name in path:
                yield path[path.index(name) :]
                done.update(path)
            else:
                path.append(name)
                rest.append(iter(needed(specs[name])))
