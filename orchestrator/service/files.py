"""Files as answers: whole, or the range of bytes that is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator

import trio
from starlette.responses import Response, StreamingResponse

CHUNK_BYTES = 1 << 18


def file_answer(file: int, size: int, asked: str, headers: dict[str, str]) -> Response:
    """The first `size` bytes of a file, or one range of them (RFC 9110); `file` is closed.

    `size` is what the file has now: it may grow while it is sent. Several ranges are answered
    with the whole, as one may.
    """
    headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", **headers}
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.strip())
    if found is None or found.groups() == ("", ""):
        headers["Content-Length"] = str(size)
        return StreamingResponse(_read(file, 0, size), headers=headers)
    start, end = _span(found[1], found[2], size)
    if start >= end:
        os.close(file)
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(_read(file, start, end), status_code=206, headers=headers)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """The bytes from and to (exclusive) that a range means; empty when the file has none."""
    if first == "":
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size


async def _read(file: int, start: int, end: int) -> AsyncIterator[bytes]:
    try:
        while start < end:
            chunk = await trio.to_thread.run_sync(
                os.pread, file, min(CHUNK_BYTES, end - start), start
            )
            if not chunk:
                return
            start += len(chunk)
            yield chunk
    finally:
        os.close(file)
