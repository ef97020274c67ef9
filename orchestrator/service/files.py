"""Files as answers: whole, or the range of bytes that is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.service.limits import count_as_stream

CHUNK_BYTES = 1 << 16
# So much is read at once, and is no download that lasts as long as its client likes.
SMALL_BYTES = 1 << 18


class FileResponse(Response):
    """The bytes from `start` to `end` of a file, which is closed with the answer."""

    def __init__(
        self, file: int, start: int, end: int, status_code: int, headers: dict[str, str]
    ) -> None:
        super().__init__(None, status_code, headers)
        self._file = file
        self._start = start
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Who sends no more may still read: that is no reason to end. Who is gone fails to be sent.
        try:
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async for chunk in self._chunks():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            os.close(self._file)

    async def _chunks(self) -> AsyncIterator[bytes]:
        start = self._start
        while start < self._end:
            size = min(CHUNK_BYTES, self._end - start)
            chunk = await trio.to_thread.run_sync(os.pread, self._file, size, start)
            if not chunk:
                return
            start += len(chunk)
            yield chunk


async def file_response(
    request: Request, file: int, size: int, headers: dict[str, str]
) -> Response:
    """The first `size` bytes of a file, or one range of them (RFC 9110); `file` is closed.

    `size` is what the file has now: it may grow while it is sent. Several ranges
    are answered with the whole, as one may.
    """
    kept = False
    try:
        headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", **headers}
        asked = request.headers.get("Range", "").strip()
        found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked, re.ASCII)
        status, start, end = 200, 0, size
        if found is not None and _is_range(found[1], found[2]):
            status, (start, end) = 206, _span(found[1], found[2], size)
            if start >= end:
                there = {**headers, "Content-Range": f"bytes */{size}"}
                return Response(status_code=416, headers=there)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        headers["Content-Length"] = str(end - start)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        if end - start <= SMALL_BYTES:
            data = await trio.to_thread.run_sync(os.pread, file, end - start, start)
            # It may have become shorter.
            headers["Content-Length"] = str(len(data))
            return Response(data, status, headers)
        count_as_stream(request)
        kept = True
        return FileResponse(file, start, end, status, headers)
    finally:
        if not kept:
            os.close(file)


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
