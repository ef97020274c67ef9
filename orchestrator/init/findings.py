"""What was found out about a project: its jobs, and what a person has to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Value = str | bool | list[str] | dict[str, str] | list[dict[str, object]]


@dataclass(frozen=True)
class Job:
    """A job of the file: `keys` in the order in which they are written, `comment` on one line."""

    name: str
    comment: str
    keys: Mapping[str, Value]


@dataclass(frozen=True)
class Findings:
    """`jobs` in the order in which they depend on each other.

    `kind` is what they are for ("Python"), `notes` what was not understood, a line each. `git` if
    the jobs need the `.git` of the snapshot, `mirrors` if they get packages from where their host
    gets them.
    """

    kind: str
    jobs: tuple[Job, ...] = ()
    notes: tuple[str, ...] = ()
    git: bool = False
    mirrors: bool = False


TOOLCHAIN, DEPS, TEST = "toolchain", "deps", "test"
REPORT = "junit.xml"
REPORT_PATH = f"/artifacts/{REPORT}"


def toolchain(what: str, install: str) -> Job:
    """The job that makes an image with Debian packages; `install` is what is run for it."""
    return Job(
        TOOLCHAIN,
        f"The image of the other jobs: Debian with {what}. Built once, and when this changes.",
        {
            "command": script(["apt-get update -q", *install.splitlines()]),
            "run_as_root": True,
            "env": {"DEBIAN_FRONTEND": "noninteractive"},
            "egress": ["*"],
            "sources": [],
            "output": "image",
        },
    )


def apt(*packages: str) -> str:
    """The line that installs Debian packages."""
    return f"apt-get install -q -y --no-install-recommends {' '.join(packages)}"


def output_of(job: str) -> dict[str, str]:
    """The value that stands for the output of a job."""
    return {"job": job}


def mount_of(job: str, path: str) -> list[dict[str, object]]:
    """The mounts of a job that finds the output of another one at a path of its guest."""
    return [{"source": output_of(job), "path": path}]


def script(lines: Iterable[str]) -> str:
    """Lines as one command."""
    every = list(lines)
    return "\n".join(every) + ("\n" if len(every) > 1 else "")
