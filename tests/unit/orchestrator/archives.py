"""Archives as guests send them, and what a host makes of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from orchestrator.attempt.archive import Collector, Manifest

MAX_BYTES = 1 << 20
MAX_LOG_BYTES = 1 << 18


def archive(*members: tuple[str, bytes | None, dict[str, object]]) -> bytes:
    """A tar archive of (name, content, attributes of the header)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            for key, value in attributes.items():
                setattr(info, key, value)
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()


def collect(
    base: Path, data: bytes, *globs: str, max_files: int = 10, chunk: int = 1 << 16
) -> tuple[Collector, Manifest]:
    collector = Collector(
        base / "artifacts",
        globs,
        max_bytes=MAX_BYTES,
        max_files=max_files,
        log_path=base / "log",
        max_log_bytes=MAX_LOG_BYTES,
    )
    for at in range(0, len(data), chunk):
        collector.feed(data[at : at + chunk])
    return collector, collector.finish()


def tree(base: Path) -> dict[str, bytes]:
    root = base / "artifacts"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if not path.is_dir()
    }


def pax_archive(*members: tuple[str, bytes, dict[str, str]], end: bool = True) -> bytes:
    """An archive of regular files with these pax headers; without `end`, its last blocks miss."""
    buffer = io.BytesIO()
    form = tarfile.PAX_FORMAT if any(headers for _, _, headers in members) else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content, headers in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = headers
            archive.addfile(info, io.BytesIO(content))
        stop = archive.offset
    return buffer.getvalue() if end else buffer.getvalue()[:stop]


def collect_all(tmp_path: Path, data: bytes) -> Manifest:
    collector = Collector(
        tmp_path / "artifacts",
        ("**",),
        max_bytes=1 << 20,
        max_files=10,
        log_path=tmp_path / "guest.log",
        max_log_bytes=MAX_LOG_BYTES,
    )
    collector.feed(data)
    return collector.finish()
