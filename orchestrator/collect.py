"""What comes out of a guest: a tar archive that nobody should believe, taken apart with care.

The archive is written in the guest, by a program that a hostile job may have replaced. It is
first spooled to the host, up to a limit, and then read member by member. Only regular files of
plain names that the job's globs take are written; everything else is refused by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Self

import msgspec

from orchestrator.contract import contract
from orchestrator.globs import any_of

RESULT, LOG = "result.json", "guest.log"
MAX_RESULT_BYTES = 64 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255
MAX_REFUSED = 1000
_CHUNK = 1 << 20

# $1: where; $2: the artifacts' expression; then the names that are wanted in any case. find
# follows no link, and tar opens neither links nor pipes.
_SCRIPT = """\
cd "$1" || exit; match=$2; shift 2
{ find "$@" -maxdepth 0 -print0 2>/dev/null
  find . -xdev -mindepth 1 -regextype posix-extended -regex "$match" ! -type d -print0
} | tar --create --file=- --format=gnu --no-recursion --ignore-failed-read \
  --null --verbatim-files-from --files-from=-"""


class CollectedFile(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on the host; `path` is relative to the artifact directory."""

    path: str
    size: int
    sha256: str


class RefusedFile(msgspec.Struct, frozen=True, kw_only=True):
    """Something in the guest that was not taken; `path` is its name, escaped."""

    path: str
    reason: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was collected. `problem` says why that is not all, when it is not."""

    files: tuple[CollectedFile, ...]
    refused: tuple[RefusedFile, ...]
    problem: str


def collect_command(globs: tuple[str, ...], *, want_log: bool) -> list[str]:
    """The guest's side, for an exec: print result, log if wanted, and artifacts as an archive."""
    wanted = [f"./{RESULT}", *([f"./{LOG}"] if want_log else [])]
    match = rf"\./({any_of(globs)})"
    return ["sh", "-c", _SCRIPT, "pikaci-collect", contract().artifacts, match, *wanted]


class Collector:
    """Takes the archive in pieces (`feed`), and writes the files (`finish`).

    `directory` is for the artifacts, and is made. `log_path`, when the log is wanted, is where
    it goes. After `finish`, `result` has the bytes of the result file, None when there is none.
    Nothing raises but the host's own disk (`OSError`).
    """

    def __init__(
        self,
        directory: Path,
        globs: tuple[str, ...],
        *,
        max_bytes: int,
        max_files: int,
        log_path: Path | None,
    ) -> None:
        self.result: bytes | None = None
        self._directory = directory
        self._globs = re.compile(any_of(globs), re.DOTALL)
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._log_path = log_path
        self._spool_path = directory.with_name(f"{directory.name}.tar")
        self._spool: BinaryIO | None = self._spool_path.open("wb")
        self._spooled = 0
        self._problem = ""
        self._files: dict[str, CollectedFile] = {}
        self._refused: list[RefusedFile] = []
        self._seen: set[str] = set()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the archive; those past the limit are dropped."""
        assert self._spool is not None
        room = self._max_bytes - self._spooled
        if len(chunk) > room:
            self._problem = f"the guest sent more than {self._max_bytes} bytes"
        self._spool.write(chunk[: max(0, room)])
        self._spooled += len(chunk)

    @property
    def silent(self) -> bool:
        """Whether nothing at all was fed."""
        return self._spooled == 0

    def finish(self) -> Manifest:
        """Read what was fed, write what may be written, and say what was not."""
        assert self._spool is not None
        self._spool.close()
        self._spool = None
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with tarfile.open(self._spool_path, "r:", tarinfo=_BoundedInfo) as archive:
                for member in archive:
                    self._take(archive, member)
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            self._problem = self._problem or f"the archive cannot be read: {error}"
        finally:
            self._spool_path.unlink()
        return Manifest(
            files=tuple(self._files.values()), refused=tuple(self._refused), problem=self._problem
        )

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        if name in (RESULT, LOG) and name in self._seen:
            return  # a glob that takes them makes the guest send them twice
        reason = self._objection(name, member)
        self._seen.add(name)
        if reason:
            self._refuse(name, reason)
            return
        content = archive.extractfile(member)
        assert content is not None
        if name == RESULT:
            self.result = content.read(MAX_RESULT_BYTES)
        elif name == LOG:
            if self._log_path is not None:
                self._write(content, self._log_path, member)
        else:
            self._write_artifact(content, name, member)

    def _objection(self, name: str, member: tarfile.TarInfo) -> str:
        """Why the member is not taken; empty when it is."""
        if member.issym() or member.islnk():
            return "is a link"
        # A sparse member of a few bytes would unfold to any size.
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            return "is not a regular file"
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name:
            return "is not a plain path below the artifact directory"
        if len(os.fsencode(name)) > MAX_NAME_BYTES or any(
            len(os.fsencode(part)) > MAX_PART_BYTES for part in path.parts
        ):
            return "has too long a name"
        if not name.isprintable():
            return "has a name that cannot be printed"
        if name == RESULT and member.size > MAX_RESULT_BYTES:
            return f"has more than {MAX_RESULT_BYTES} bytes"
        if name in (RESULT, LOG):
            return ""
        if name in self._files:
            return "came before"
        if not self._globs.fullmatch(name):
            return "was not asked for"
        if len(self._files) >= self._max_files:
            return f"is one more than {self._max_files} files"
        return ""

    def _write_artifact(self, content: IO[bytes], name: str, member: tarfile.TarInfo) -> None:
        path = self._directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            digest = self._write(content, path, member)
        except (FileExistsError, NotADirectoryError):
            # Two members, one of which has the other for its directory.
            self._refuse(name, "collides with another artifact")
            return
        self._files[name] = CollectedFile(path=name, size=member.size, sha256=digest)

    def _write(self, content: IO[bytes], path: Path, member: tarfile.TarInfo) -> str:
        mode = 0o755 if member.mode & 0o100 else 0o644
        digest = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(path, flags, mode), "wb") as file:
            try:
                while chunk := content.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            except BaseException:
                if path != self._log_path:  # the half of a log is worth having
                    path.unlink()
                raise
        return digest.hexdigest()

    def _refuse(self, name: str, reason: str) -> None:
        shown = ascii(name)[1:-1] if not name.isprintable() else name
        if len(self._refused) < MAX_REFUSED:
            self._refused.append(RefusedFile(path=shown[:MAX_NAME_BYTES], reason=reason))
        else:
            self._problem = self._problem or f"more than {MAX_REFUSED} files were refused"


class _BoundedInfo(tarfile.TarInfo):
    """A header that may not make us read an endless name, comment or map into memory.

    What is no header, where one is due, and an archive without its end are errors here: tarfile
    takes both for the end.
    """

    _NAMES_AND_COMMENTS = (
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    )

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("it has a map of a sparse file")

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self._NAMES_AND_COMMENTS and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member
