"""What a guest would not find in a directory of the host: mounts below it, and places for mounts.

Incus mounts a directory without the mounts below it, so a guest finds the empty directories that
they are on. And it makes no directory in a read-only mount for another mount.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from orchestrator.host_paths import directories, mounts_below
from states.errors import SpecError
from states.spec import JobSpec

_SHOWN = 5


def missing_places(spec: JobSpec) -> Iterator[SpecError]:
    """The mounts inside another mount whose source has no directory for them.

    The spec must have real paths. Looks at the disk, but only if there are such mounts.
    """
    paths = [mount.path.rstrip("/") for mount in spec.mounts]
    for index, path in enumerate(paths):
        outer = [one for one in paths if path.startswith(f"{one}/")]
        if not outer:
            continue
        around = paths.index(max(outer, key=len))
        source = spec.mounts[around].source
        if not isinstance(source, str):
            continue  # the output of another job: known only when that job has ended
        place = os.path.join(source, os.path.relpath(path, paths[around]))
        if not os.path.isdir(place) or os.path.realpath(place) != place:
            yield SpecError(
                f"mounts[{index}].path",
                f"{path!r} is inside mounts[{around}] ({paths[around]!r}), and there is no"
                f" directory {place!r} to mount it on",
                allowed=f"a path that is a directory of {source!r}, or one elsewhere",
            )


def hidden_mounts(specs: Mapping[str, JobSpec]) -> dict[str, str]:
    """A line for each directory of a job with other mounts below it, and the job's name.

    Not for those that the job mounts there too, at the same place in the guest.
    """
    hidden: dict[str, str] = {}
    for name, spec in specs.items():
        for key, source in directories(spec):
            inner = [os.path.join(source, one) for one in _inner_mounts(spec, key)]
            found = [
                one
                for one in mounts_below(source)
                if not any(f"{one}/".startswith(f"{place}/") for place in inner)
            ]
            if found:
                more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
                hidden[
                    f"jobs.{name}.{key}: in the guest, {', '.join(found[:_SHOWN])}{more} will be"
                    " empty: other mounts of this host are there, which need their own `mounts`"
                ] = name
    return hidden


def _inner_mounts(spec: JobSpec, key: str) -> list[str]:
    """Where the job mounts something inside this mount of its own, relative to that."""
    paths = {f"mounts[{index}].source": mount.path for index, mount in enumerate(spec.mounts)}
    if key not in paths:
        return []
    outer = paths[key].rstrip("/") + "/"
    return [one.rstrip("/").removeprefix(outer) for one in paths.values() if one.startswith(outer)]
