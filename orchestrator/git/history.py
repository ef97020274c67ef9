"""The history of a commit: which objects, tags and boundaries a repository of our own gets.

Git does not see the refs of the workspace's repository: pikaci reads its tags as plain data, and
git says which of them the commit contains. Grafts and replaced objects do not count.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.git.isolated import Git
from orchestrator.git.repository import REPAIR, Repository, Unreadable, read

_FORMAT = b"pikaci history 1\0"
_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PACKED = re.compile(rb"^([0-9a-f]{40}(?:[0-9a-f]{24})?) (refs/tags/.+)$", re.MULTILINE)
# As in git-check-ref-format(1). Git stops at a packed ref whose name is none.
_NO_NAME = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|/\.|\.lock(?:/|$)|[./]$")
_MAX_TAGS = 100_000
_MAX_DEPTH = 20  # directories of loose tags


@dataclass(frozen=True)
class History:
    """A commit, the tags that lead to it or to its ancestors, and where their objects are.

    `tags` are (name, object) in the order of their names. `shallow` are the commits whose parents
    are not there. `left_out` are tracked files that the snapshot lacks because of a rule. Git runs
    with `environment`.
    """

    objects: Path
    commit: str
    tags: tuple[tuple[bytes, str], ...]
    shallow: tuple[str, ...]
    left_out: frozenset[bytes]
    environment: Mapping[str, str]

    @property
    def key(self) -> bytes:
        """The SHA-256 of all that a repository made of this depends on, apart from its objects."""
        whole = hashlib.sha256(_FORMAT)
        tags = [b"%b %b" % (name, target.encode()) for name, target in self.tags]
        boundary = [one.encode() for one in self.shallow]
        for part in ([self.commit.encode()], tags, boundary, sorted(self.left_out)):
            whole.update(b"%d:" % len(part))
            for text in part:
                whole.update(b"%d:%b" % (len(text), text))
        return whole.digest()


def read_history(
    git: Git, repository: Repository, commit: str, left_out: frozenset[bytes]
) -> History:
    """The history of the repository's commit. `git` is that of the repository's work tree.

    Raises `Unreadable` if git cannot read it.
    """
    shallow = _shallow(repository)
    if shallow:  # an empty file would keep git from using a commit-graph
        git.put("shallow", b"".join(one + b"\n" for one in shallow))
    tags = _tags(repository)
    contained: list[tuple[bytes, str]] = []
    if tags:
        git.put("packed-refs", b"".join(b"%b %b\n" % (tags[name], name) for name in sorted(tags)))
        listed = git.run(
            "for-each-ref", f"--merged={commit}", "--format=%(objectname) %(refname)", "refs/tags"
        ).stdout
        for line in listed.splitlines():
            target, _, name = line.partition(b" ")
            contained.append((name, target.decode()))
    if shallow:
        starts = "".join(f"{one}\n" for one in (commit, *(target for _, target in contained)))
        there = git.run("rev-list", "--stdin", stdin=starts.encode()).stdout.split()
        shallow &= set(there)
    return History(
        git.objects,
        commit,
        tuple(sorted(contained)),
        tuple(sorted(one.decode() for one in shallow)),
        left_out,
        git.environment,
    )


def _shallow(repository: Repository) -> set[bytes]:
    try:
        found = set((read(repository.common_dir / "shallow") or b"").split())
    except IsADirectoryError:
        found = {b"it is a directory"}
    if not all(_ID.fullmatch(one) for one in found):
        raise Unreadable(
            f"{repository.common_dir / 'shallow'}: not a list of commits", resolution=REPAIR
        )
    return found


def _tags(repository: Repository) -> dict[bytes, bytes]:
    """All tags of a repository: the object of each. A loose one replaces a packed one.

    Names that git does not allow do not count, nor do symbolic tags.
    """
    packed = read(repository.common_dir / "packed-refs") or b""
    tags = {name: target for target, name in _PACKED.findall(packed)}
    for path in _loose(repository.common_dir / "refs" / "tags"):
        content = (read(path) or b"").strip()
        name = os.fsencode(path.relative_to(repository.common_dir))
        if _ID.fullmatch(content):
            tags[name] = content
    tags = {name: target for name, target in tags.items() if not _NO_NAME.search(name)}
    if len(tags) > _MAX_TAGS:
        raise Unreadable(
            f"{repository.common_dir}: more than {_MAX_TAGS} tags",
            resolution="delete some, or leave `git = true` out of [snapshot]",
        )
    return tags


def _loose(directory: Path, depth: int = 0) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if depth < _MAX_DEPTH:
                yield from _loose(Path(entry.path), depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
