"""Files as answers: whole, or the range of bytes that is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator

import trio
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

CHUNK_BYTES = 1 << 16


class FileAnswer(StreamingResponse):
    """The bytes from `start` to `end` of a file, which is closed with the answer."""

    def __init__(
        self, file: int, start: int, end: int, status_code: int, headers: dict[str, str]
    ) -> None:
        super().__init__(self._read(start, end), status_code, headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not in `_read`: who goes away before the first byte has it never begun.
        try:
            if scope["method"] == "HEAD":
                await Response(headers=self.headers, status_code=self.status_code)(
                    scope, receive, send
                )
            else:
                await super().__call__(scope, receive, send)
        finally:
            os.close(self._file)

    async def _read(self, start: int, end: int) -> AsyncIterator[bytes]:
        while start < end:
            size = min(CHUNK_BYTES, end - start)
            chunk = await trio.to_thread.run_sync(os.pread, self._file, size, start)
            if not chunk:
                return
            start += len(chunk)
            yield chunk


def file_answer(file: int, size: int, asked: str, headers: dict[str, str]) -> Response:
    """The first `size` bytes of a file, or one range of them (RFC 9110); `file` is closed.

    `size` is what the file has now: it may grow while it is sent. Several ranges are answered
    with the whole, as one may.
    """
    headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", **headers}
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.strip(), re.ASCII)
    if found is None or not _is_range(found[1], found[2]):
        headers["Content-Length"] = str(size)
        return FileAnswer(file, 0, size, 200, headers)
    start, end = _span(found[1], found[2], size)
    if start >= end:
        os.close(file)
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    return FileAnswer(file, start, end, 206, headers)


def _is_range(first: str, last: str) -> bool:
    """Whether it says something; one that ends before it begins is to be overlooked."""
    if first and last:
        return int(first) <= int(last)
    return bool(first or last)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """The bytes from and to (exclusive) that a range means; empty when the file has none."""
    if first == "":
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
