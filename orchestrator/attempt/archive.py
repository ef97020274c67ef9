"""Unpacks the tar archive that comes out of a guest, without trusting it.

A program in the guest writes the archive, and a hostile job may have replaced that program. The
archive is unpacked as it arrives. Only regular files with plain names that match the job's globs
are written; everything else is refused by name. The result comes first, then the log, so that both
are safe however long the artifacts take and however the archive ends.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from orchestrator.attempt.tar_stream import BadArchive, Kind, Member, Sink, TarStream
from orchestrator.contract import contract
from orchestrator.globs import GlobSet, any_of
from orchestrator.terminal import plain
from orchestrator.units import size
from orchestrator.usage_samples import MAX_BYTES as MAX_USAGE_BYTES
from states.errors import PikaciError

RESULT, LOG, USAGE = "result.json", "guest.log", "guest.usage"
MANIFEST = "manifest.json"
MAX_ARTIFACT_BYTES = 1 << 30  # all artifacts together
MAX_ARTIFACT_FILES = 10_000
MAX_LOG_BYTES = 2 << 30  # default
MAX_RESULT_BYTES = 64 * 1024
MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255
MAX_REFUSED = 1000
# For the list after the archive, of files that the guest does not send.
MAX_REST_BYTES = 1 << 20

# $1: the directory; $2: the regular expression for artifacts, empty for none; then the names that
# are always wanted. `large` and `large_log` limit the bytes of an artifact and of the log. find
# follows no links, and tar opens neither links nor pipes. Names are matched twice: as characters,
# and as bytes for those that are not UTF-8. Files that are too large, and sockets, which tar skips,
# are listed after the archive, each with a letter for its kind.
_SCRIPT = """\
cd "$1" || exit; match=$2; shift 2
large='-size +{max_bytes}c' large_log='-size +{max_log_bytes}c'
taken() {
  format=$1; shift
  [ -z "$match" ] || for locale in C.UTF-8 C; do
    LC_ALL=$locale find . -xdev -mindepth 1 -regextype posix-extended -regex "$match" \
      "$@" -printf "$format"
  done | LC_ALL=C sort -zu
}
{ find "$@" -maxdepth 0 ! $large_log -print0 2>/dev/null
  taken '%p\\0' ! -type d ! -type s ! $large
} | tar --create --file=- --format=gnu --no-recursion --hard-dereference --ignore-failed-read \
  --null --verbatim-files-from --files-from=-
code=$?
find "$@" -maxdepth 0 $large_log -printf 'l%p\\0' 2>/dev/null
taken '%y%p\\0' '(' -type s -o -type f $large ')'
exit $code"""


class CollectedFile(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on the host; `path` is relative to the artifact directory."""

    path: str
    size: int
    sha256: str


class RefusedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in the guest that was refused; `path` is its name, escaped."""

    path: str
    reason: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was collected. `problem` says why something is missing, "" if nothing is."""

    files: tuple[CollectedFile, ...]
    refused: tuple[RefusedFile, ...]
    problem: str


def unmatched(globs: tuple[str, ...], manifest: Manifest) -> list[str]:
    """The globs that matched no file; none if the archive is incomplete, as it may have had one."""
    if manifest.problem:
        return []
    names = [one.path for one in manifest.files] + [one.path for one in manifest.refused]
    return [glob for glob in globs if not any(map(GlobSet((glob,)).takes, names))]


# Made here, and not at the first use: msgspec may crash when two threads are the first to decode
# a type at once, as two jobs that end together are.
_DECODER = msgspec.json.Decoder(Manifest)


def write_manifest(attempt: Path, manifest: Manifest) -> None:
    """Write the manifest into an attempt's directory, atomically."""
    new = attempt / f"{MANIFEST}.new"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    new.replace(attempt / MANIFEST)


def read_manifest(attempt: Path) -> Manifest:
    """Read the manifest from an attempt's directory.

    Raises `FileNotFoundError` if nothing was collected, `msgspec.MsgspecError` if it is invalid.
    """
    return _DECODER.decode((attempt / MANIFEST).read_bytes())


def read_artifacts(attempt: Path) -> Manifest:
    """Like `read_manifest`; empty if nothing was collected, `PikaciError` if it is invalid."""
    try:
        return read_manifest(attempt)
    except FileNotFoundError:
        return Manifest(files=(), refused=(), problem="")
    except msgspec.MsgspecError as error:
        raise PikaciError(
            f"the list of the artifacts in {attempt} cannot be read: {error}",
            resolution=f"the files themselves are in {attempt / 'artifacts'}",
        ) from None


def collect_command(
    globs: tuple[str, ...],
    *,
    want_log: bool,
    max_bytes: int = MAX_ARTIFACT_BYTES,
    max_log_bytes: int = MAX_LOG_BYTES,
) -> list[str]:
    """The command for the guest: prints an archive of result, log if wanted, usage, and artifacts.

    It only lists, and does not send, an artifact over `max_bytes` or a log over `max_log_bytes`.
    """
    wanted = [f"./{RESULT}", *([f"./{LOG}"] if want_log else []), f"./{USAGE}"]
    match = rf"\./({any_of(globs)})" if globs else ""
    script = _SCRIPT.replace("{max_bytes}", str(max_bytes))
    script = script.replace("{max_log_bytes}", str(max_log_bytes))
    return ["sh", "-c", script, "pikaci-collect", contract().artifacts, match, *wanted]


class Collector:
    """Takes the archive in pieces (`feed`), and writes its files as they arrive.

    Artifacts go into `directory`, which is created; the log goes to `log_path`, up to
    `max_log_bytes`, or is skipped if that is None. `result` and `usage` hold the bytes of these
    files once they have arrived, else None. Raises only `OSError`, for problems with the host's own
    disk.
    """

    def __init__(
        self,
        directory: Path,
        globs: tuple[str, ...],
        *,
        log_path: Path | None,
        max_log_bytes: int = MAX_LOG_BYTES,
        max_bytes: int = MAX_ARTIFACT_BYTES,
        max_files: int = MAX_ARTIFACT_FILES,
    ) -> None:
        self.result: bytes | None = None
        self.usage: bytes | None = None
        self._directory = directory
        self._globs = GlobSet(globs)
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._log_path = log_path
        self._max_log_bytes = max_log_bytes
        self._silent = True
        self._taken = 0  # bytes of all artifacts so far
        self._problem = ""
        self._broken = False
        self._files: dict[str, CollectedFile] = {}
        self._refused: list[RefusedFile] = []
        self._seen: set[str] = set()
        self._now: _Content | None = None
        self._archive = TarStream(self._begin, self._end, max_rest=MAX_REST_BYTES)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the archive; bytes beyond the limits are dropped."""
        self._silent = self._silent and not chunk
        if self._broken:
            return
        try:
            self._archive.feed(chunk)
        except BadArchive as error:
            self._break(f"the archive cannot be read: {error}")

    @property
    def silent(self) -> bool:
        """Whether nothing was fed."""
        return self._silent

    def _break(self, problem: str) -> None:
        self._broken = True
        self._problem = self._problem or problem

    @property
    def _max_fed(self) -> int:
        # Each member has its header, and the log comes beside the artifacts.
        return 2 * (self._max_bytes + self._max_log_bytes) + (1 << 24)

    def finish(self, problem: str = "") -> Manifest:
        """Return what was taken and what was refused. An incomplete artifact is deleted.

        `problem` says why the archive broke off, if that is known.
        """
        if self._now is not None:
            self._now.abandon()
            self._now = None
        if problem:
            self._break(problem)
        if not self._broken:
            try:
                self._archive.close()
            except BadArchive as error:
                self._break(f"the archive cannot be read: {error}")
        self._take_rest(self._archive.rest)
        return Manifest(
            files=tuple(self._files.values()), refused=tuple(self._refused), problem=self._problem
        )

    def _begin(self, member: Member) -> Sink | None:
        """The sink for the member's content; None if it is not wanted."""
        name = member.name.removeprefix("./")
        if name in (RESULT, LOG, USAGE) and name in self._seen:
            return None  # if a glob matches them too, the guest sends them twice
        reason = self._objection(name, member)
        self._seen.add(name)
        if reason:
            self._refuse(name, reason)
            return None
        if name == LOG and self._log_path is None:
            return None
        try:
            self._now = self._open(name, member)
        except (FileExistsError, NotADirectoryError):
            # One member's name is the directory of another.
            self._refuse(name, "collides with another artifact")
            return None
        return self._now.write

    def _open(self, name: str, member: Member) -> _Content:
        if name == RESULT:
            return _Content(name, None, MAX_RESULT_BYTES)
        if name == USAGE:
            return _Content(name, None, MAX_USAGE_BYTES)
        if name == LOG:
            assert self._log_path is not None
            return _Content(name, _create(self._log_path), self._max_log_bytes)
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._taken += member.size
        return _Content(name, _create(path, executable=member.executable), member.size)

    def _end(self) -> None:
        """The member's content is complete."""
        assert self._now is not None
        content, self._now = self._now, None
        content.close()
        if content.name == RESULT:
            self.result = bytes(content.kept)
        elif content.name == USAGE:
            self.usage = bytes(content.kept)
        elif content.name != LOG:
            self._files[content.name] = CollectedFile(
                path=content.name, size=content.size, sha256=content.digest.hexdigest()
            )

    def _objection(self, name: str, member: Member) -> str:
        """Why the member is refused; empty if it is not."""
        if member.kind is not Kind.FILE:
            is_link = member.kind in (Kind.SYMLINK, Kind.HARD_LINK)
            return "is a link" if is_link else "is not a regular file"
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name:
            return "is not a plain path below the artifact directory"
        if len(os.fsencode(name)) > MAX_NAME_BYTES or any(
            len(os.fsencode(part)) > MAX_PART_BYTES for part in path.parts
        ):
            return "has a name that is too long"
        if not _is_text(name):
            return "has a name that is not UTF-8"
        if not _is_printable(name):
            return "has a name that cannot be printed"
        if name == RESULT:
            too_large = member.size > MAX_RESULT_BYTES
            return f"has more than {size(MAX_RESULT_BYTES)}" if too_large else ""
        if name == USAGE:
            too_large = member.size > MAX_USAGE_BYTES
            return f"has more than {size(MAX_USAGE_BYTES)}" if too_large else ""
        if name == LOG:
            return ""
        if name in self._files:
            return "is in the archive twice"
        if not self._globs.takes(name):
            return "matches no artifact glob"
        if len(self._files) >= self._max_files:
            return f"is beyond the limit of {self._max_files} files"
        if self._taken + member.size > self._max_bytes:
            most = f"all artifacts together may have at most {size(self._max_bytes)}"
            self._problem = self._problem or most
            return f"does not fit: {most}"
        return ""

    def _take_rest(self, rest: bytes) -> None:
        """Read the guest's list after the archive."""
        reasons = {
            b"f": f"is larger than {size(self._max_bytes)}",
            b"l": f"is larger than {self._max_log_bytes} bytes",
            b"s": "is not a regular file",
        }
        # The archive itself is padded with thousands of zeros.
        for entry in rest.lstrip(b"\0").split(b"\0")[:-1]:
            letter = entry[:1]
            if letter not in reasons:
                continue
            name = entry[1:].removeprefix(b"./").decode("utf-8", "surrogateescape")
            if name not in self._seen:  # a glob may match the log too
                self._seen.add(name)
                self._refuse(name, reasons[letter])

    def _refuse(self, name: str, reason: str) -> None:
        shown = name if _is_text(name) and _is_printable(name) else _escape(name)
        if len(self._refused) < MAX_REFUSED:
            self._refused.append(RefusedFile(path=shown[:MAX_NAME_BYTES], reason=reason))
        else:
            self._problem = self._problem or f"more than {MAX_REFUSED} files were refused"


class _Content:
    """A member's content as it arrives: written to a file, or kept in memory if there is none."""

    def __init__(self, name: str, file: IO[bytes] | None, most: int) -> None:
        self.name = name
        self.size = 0
        self.kept = bytearray()
        self.digest = hashlib.sha256()
        self._file = file
        self._most = most

    def write(self, data: bytes) -> None:
        data = data[: self._most - self.size]
        self.size += len(data)
        self.digest.update(data)
        if self._file is None:
            self.kept += data
        else:
            self._file.write(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def abandon(self) -> None:
        """The content broke off: half a log is useful, half of anything else is not."""
        if self._file is not None:
            self._file.close()
            if self.name != LOG:
                os.unlink(self._file.name)


def _create(path: Path, *, executable: bool = False) -> IO[bytes]:
    def opener(name: str, _: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o755 if executable else 0o644)

    return open(path, "wb", opener=opener)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(name: str) -> str:
    """In ASCII; bytes that are not UTF-8 as in a shell's quotes."""
    return "".join(
        f"\\x{ord(one) - 0xDC00:02x}" if "\udc80" <= one <= "\udcff" else ascii(one)[1:-1]
        for one in name
    )


def _is_printable(name: str) -> bool:
    """Whether the name prints unchanged on one line: no controls, nothing that reorders text."""
    return plain(name) == name and "\t" not in name
