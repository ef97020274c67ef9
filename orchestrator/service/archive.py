"""All artifacts of a job as one tar archive, which is made while it is sent."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path

import trio
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFound
from orchestrator.service.artifacts import list_artifacts, open_artifact
from orchestrator.service.files import ChunksResponse, chunks_of
from orchestrator.service.limits import count_as_stream
from orchestrator.service.types import Artifact

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


async def archive_response(request: Request, directory: Path, job: str) -> Response:
    """Send the artifacts of an attempt's directory as `artifacts-JOB.tar`, bytes as they are.

    Its length is sent before it. If a file has become shorter, or is gone, the answer is cut off.
    `NotFound` if there is none.
    """
    name = f"artifacts-{re.sub('[^A-Za-z0-9._-]', '_', job)}"

    def plan() -> tuple[list[Artifact], int, int]:
        files = list_artifacts(directory / "artifacts")
        try:
            collected = int((directory / "artifacts").stat().st_mtime)
        except FileNotFoundError:  # there was none, or garbage collection has just deleted it
            files, collected = [], 0
        heads = (len(_head(name, file, collected)) for file in files)
        whole = sum(heads) + sum(_padded(file.size) for file in files) + len(_END)
        return files, collected, whole

    files, collected, whole = await trio.to_thread.run_sync(plan)
    if not files:
        raise NotFound(f"the job {job} has no artifacts")
    headers = {
        "Content-Type": "application/x-tar",
        "Content-Disposition": f'attachment; filename="{name}.tar"',
        "Content-Length": str(whole),
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    if request.method == "HEAD":
        return Response(headers=headers)
    count_as_stream(request)
    return ChunksResponse(_chunks(directory, name, files, collected), 200, headers)


async def _chunks(
    directory: Path, name: str, files: Sequence[Artifact], collected: int
) -> AsyncGenerator[bytes, None]:
    for artifact in files:
        yield _head(name, artifact, collected)
        try:
            opened = partial(open_artifact, directory / "artifacts", artifact.path)
            file = await trio.to_thread.run_sync(opened)
        except NotFound:
            return
        try:
            sent = 0
            async for chunk in chunks_of(file, 0, artifact.size):
                sent += len(chunk)
                yield chunk
        finally:
            os.close(file)
        if sent < artifact.size:
            return
        yield bytes(_padded(artifact.size) - artifact.size)
    yield _END


def _head(name: str, artifact: Artifact, collected: int) -> bytes:
    info = tarfile.TarInfo(f"{name}/{artifact.path}")
    info.size, info.mtime = artifact.size, collected
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
