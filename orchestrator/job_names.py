"""Which jobs of a job file are meant by names and globs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from orchestrator.errors import UsageError
from states.mistakes import did_you_mean


def matching(names: Sequence[str], jobs: Collection[str], file: Path) -> list[str]:
    """The jobs for names and globs; those of a glob in the order of `jobs`.

    `UsageError`, with the nearest jobs, for a name or glob that has none; `file` is named in it.
    """
    found = {
        name: fnmatch.filter(jobs, name) if _is_glob(name) else [name] if name in jobs else []
        for name in dict.fromkeys(names)
    }
    unknown = {
        name: did_you_mean(re.sub(r"[*?\[\]!]", "", name), jobs)
        for name, jobs_of_name in found.items()
        if not jobs_of_name
    }
    if unknown:
        lines = [
            f"{file}: {'no job matches' if _is_glob(name) else 'there is no job'} {name!r}{near}"
            for name, near in unknown.items()
        ]
        raise UsageError(
            "\n".join(lines),
            resolution="" if all(unknown.values()) else f"the jobs are: {', '.join(jobs)}",
        )
    return [job for jobs_of_name in found.values() for job in jobs_of_name]


def _is_glob(name: str) -> bool:
    # No job's name has one of these.
    return any(char in name for char in "*?[")
