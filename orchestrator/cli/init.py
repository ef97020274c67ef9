"""`pikaci init`: writes a first job file for the project that is here."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import click

from orchestrator.cli.options import output_option
from orchestrator.cli.workspace import JOB_FILE, find_workspace
from orchestrator.errors import UsageError

# What is looked at of a tree: it may be of any size, and nobody vouches for it.
MOST_FILES = 20_000
MOST_BYTES = 1 << 20
DEPTH = 4
_SKIPPED = {"__pycache__", "build", "dist", "node_modules", "target", "venv"}


@click.command("init")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    help="The project's directory. Default: the current directory.",
)
@click.option("--print", "only_print", is_flag=True, help="Print the job file. Write nothing.")
@output_option
def command(workspace: Path | None, only_print: bool, output: str) -> int:
    """Write a first job file, pikaci.toml, for this project.

    It looks at the project's own files (pyproject.toml, package.json, Cargo.toml, go.mod,
    CMakeLists.txt, configure.ac, Makefile and others), and writes jobs that install what the tests
    need and run them. Nothing of the project is run, and an existing file is not changed.

    Exit codes: 0 written, 2 there is a pikaci.toml already, or no file says how to test it.
    """
    from orchestrator.cli.documents import WrittenJobFile
    from orchestrator.cli.output import print_items
    from orchestrator.init import Tree, detect, write
    from orchestrator.job.mirrors import host_mirrors
    from orchestrator.terminal import plain

    directory = (workspace or Path.cwd()).resolve()
    if not directory.is_dir():
        raise UsageError(
            f"--workspace {workspace}: there is no such directory",
            resolution="name an existing directory",
        )
    file = directory / JOB_FILE
    if not only_print and os.path.lexists(file):
        raise _there(file)
    mirrors = host_mirrors(os.environ)
    tree = Tree(
        dict(_read(directory)),
        has_commit=_has_commit(directory),
        # apt's sources are in the image, which was built with them.
        host_has_mirrors=bool(mirrors.variables),
    )
    found = detect(tree)
    if not found.jobs:
        raise UsageError(
            f"{directory}: no file here says how to test the project",
            details="\n".join(found.notes),
            resolution="try a command with `pikaci run -- COMMAND`, and put it into a job: see"
            " docs/job-file.md",
        )
    text = write(found)
    report = WrittenJobFile(
        file=str(file),
        kind=found.kind,
        jobs={job.name: job.comment for job in found.jobs},
        notes=tuple(found.notes),
        text=text,
    )
    if only_print:
        if not print_items(output, [report], report):
            click.echo(text, nl=False)
        return 0
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise _there(file) from None
    if print_items(output, [report], report):
        return 0
    click.echo(f"wrote {plain(str(file))} for {plain(found.kind)}")
    for job in found.jobs:
        click.echo(f"  {plain(job.name):10} {plain(job.comment)}")
    if found.notes:
        click.echo("not understood:")
    for note in found.notes:
        click.echo(f"  {plain(note)}")
    if above := _job_file_above(directory):
        click.echo(f"so far, pikaci used {plain(str(above))} in this directory")
    where = "" if directory == Path.cwd() else f" --workspace {plain(str(directory))}"
    click.echo(f"-> pikaci run --dry-run{where}    shows what would be done")
    click.echo(f"-> pikaci run{where}              does it")
    return 0


def _there(file: Path) -> UsageError:
    return UsageError(
        f"{file} exists already, and was not changed",
        resolution="`pikaci init --print` prints what init would write",
    )


def _job_file_above(directory: Path) -> Path | None:
    """The job file that commands in the directory used before it had one."""
    try:
        workspace = find_workspace(directory.parent)
    except UsageError:
        return None
    return file if os.path.lexists(file := workspace / JOB_FILE) else None


def _has_commit(directory: Path) -> bool:
    """Whether the directory is the root of a repository with a commit, as far as a look tells."""
    from orchestrator.git.repository import Unreadable, repository_at

    try:
        repository = repository_at(directory)
        return repository is not None and repository.head() is not None
    except Unreadable:
        return False


def _read(directory: Path) -> Iterator[tuple[str, str]]:
    """The paths of the tree's files, with the text of those that are worth reading."""
    from orchestrator.init.tree import READ

    count = 0
    for above, directories, files in os.walk(directory):
        below = Path(above).relative_to(directory)
        directories[:] = sorted(
            name
            for name in directories
            if name not in _SKIPPED and name[0] != "." and len(below.parts) < DEPTH - 1
        )
        for name in sorted(files):
            count += 1
            if count > MOST_FILES:
                return
            path = (below / name).as_posix()
            wanted = any(fnmatchcase(path, glob) for glob in READ)
            yield path, _text(directory, path) if wanted else ""


def _text(directory: Path, path: str) -> str:
    """The text of a regular file in the tree; "" for what is none, is larger, or leads outside."""
    full = directory / path
    try:
        if not full.resolve().is_relative_to(directory):
            return ""
        # Opening a pipe would wait for a writer.
        with open(os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                return ""
            data = opened.read(MOST_BYTES + 1)
    except OSError:
        return ""
    return data.decode("utf-8", "replace") if len(data) <= MOST_BYTES else ""
