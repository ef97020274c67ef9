"""The outputs of a state root: each in a directory named by its key and by the job that made it.

A directory appears under its name only when it is complete, and never changes after that: `tree`,
if the output is one, and `output.json`. Files in `used` say which runs made or used the output; it
is kept as long as one of those runs is.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from orchestrator.incus import LOCAL
from orchestrator.syncfs import sync_file_system
from states.events import OutputRef

NEW = ".new-"
_IMAGES = ".images"  # there while Incus may have an image of ours
RECORD, TREE, USED = "output.json", "tree", "used"
MAX_FILES = 2000  # of the workspace, that a record lists


class OutputRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an output; `size` in bytes.

    `name` and `workspace` are the maker's. `parts` are those of the key, `sources` the hashes of
    the workspace's files that the maker saw, if they are few. `unkeyed` is what the maker could use
    that the key does not contain.
    """

    key: str
    job: str
    name: str
    workspace: str
    at: datetime
    parts: dict[str, str]
    sources: dict[str, str] = {}
    fingerprint: str = ""
    unkeyed: tuple[str, ...] = ()
    size: int = 0
    entries: int = 0

    @property
    def ref(self) -> OutputRef:
        """What the journal says of it."""
        return OutputRef(
            key=self.key,
            job=self.job,
            at=self.at,
            fingerprint=self.fingerprint,
            unkeyed=self.unkeyed,
        )

    @property
    def directory(self) -> str:
        """The name of its directory."""
        return directory_name(self.key, self.job)


# Made here: msgspec may crash when two threads are the first to decode a type at once.
_DECODER = msgspec.json.Decoder(OutputRecord)


def directory_name(key: str, job: str) -> str:
    """The name of the directory of an output."""
    return f"{key}.{job}"


class OutputStore:
    """The outputs below one directory. All methods block on the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def tree(self, ref: OutputRef) -> Path:
        """Where the tree of an output is."""
        return self.directory / directory_name(ref.key, ref.job) / TREE

    def find(self, key: str) -> OutputRecord | None:
        """The newest output with this key; None if there is none."""
        found = [record for path in self._named(f"{key}.*") if (record := read_record(path))]
        return max(found, key=lambda record: record.at, default=None)

    def made_by(self, key: str, job: str) -> OutputRecord | None:
        """The output with this key that this job made; None if there is none."""
        return read_record(self.directory / directory_name(key, job))

    def last_of(self, workspace: str, name: str) -> OutputRecord | None:
        """The newest output of the job with this name; None if there is none."""
        mine = [one for one in self.all() if (one.workspace, one.name) == (workspace, name)]
        return max(mine, key=lambda record: record.at, default=None)

    def all(self) -> list[OutputRecord]:
        """All outputs, the oldest first."""
        found = [record for path in self._named("*") if (record := read_record(path))]
        return sorted(found, key=lambda record: record.at)

    def use(self, record: OutputRecord, run: str) -> None:
        """Note that a run uses the output, so that it is kept. `OSError` if it is gone."""
        used = self.directory / record.directory / USED / run
        used.touch()

    def runs(self, directory: str) -> dict[str, float]:
        """The runs that use an output, by its directory's name, each with the time of its use."""
        used = self.directory / directory / USED
        with suppress(OSError):
            return {path.name: path.stat().st_mtime for path in used.iterdir()}
        return {}

    def note_images(self, host: str = "") -> None:
        """Note that there may be images on a host from now on; "" is the local one."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        with (self.directory / _IMAGES).open("a+") as noted:
            noted.seek(0)
            if (host or LOCAL) not in noted.read().splitlines():
                noted.write(f"{host or LOCAL}\n")
        os.utime(self.directory / _IMAGES)

    def images_noted(self) -> int | None:
        """When that was last noted, in nanoseconds; None if there are no images."""
        try:
            return (self.directory / _IMAGES).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def hosts_of_images(self) -> list[str]:
        """The names of the hosts that may have images of this state root."""
        try:
            named = (self.directory / _IMAGES).read_text().split()
        except FileNotFoundError:
            return []
        return sorted(set(named)) or [LOCAL]  # older versions noted no name

    def note_no_images(self, host: str = "") -> None:
        """Note that a host has no image of this state root; others may have some."""
        left = [name for name in self.hosts_of_images() if name != (host or LOCAL)]
        if not left:
            (self.directory / _IMAGES).unlink(missing_ok=True)
            return
        new = self.directory / f"{_IMAGES}{NEW}"
        new.write_text("".join(f"{name}\n" for name in left))
        new.replace(self.directory / _IMAGES)

    def begin(self, run: str) -> Path:
        """A new directory for an output that a job of this run makes, with an empty tree.

        Its name has the run's session, by which garbage collection knows whether the maker lives.
        """
        self.directory.mkdir(mode=0o700, exist_ok=True)
        new = self.directory / f"{NEW}{run}.{secrets.token_hex(8)}"
        new.mkdir(mode=0o700)
        (new / TREE).mkdir()
        (new / USED).mkdir()
        return new

    def publish(self, new: Path, record: OutputRecord, run: str) -> None:
        """Give a directory from `begin` its name. One with this name is the same output."""
        if record.fingerprint:
            (new / TREE).rmdir()
        (new / USED / run).touch()
        (new / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        sync_file_system(new)
        try:
            new.rename(self.directory / record.directory)
        except OSError:
            if not (self.directory / record.directory).is_dir():
                raise
            shutil.rmtree(new)

    def _named(self, glob: str) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return [path for path in self.directory.glob(glob) if not path.name.startswith(".")]


def read_record(directory: Path) -> OutputRecord | None:
    """The record in an output's directory; None if it cannot be read."""
    try:
        return _DECODER.decode((directory / RECORD).read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
