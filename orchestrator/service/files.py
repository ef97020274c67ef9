"""Sends files: the whole file, or the range of bytes that the client asks for."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.service.limits import count_as_stream

CHUNK_BYTES = 1 << 16
# Up to this size an answer is read at once, and does not count as a stream.
SMALL_BYTES = 1 << 18


class ChunksResponse(Response):
    """Sends chunks of a known total length; if they are shorter, the connection is closed."""

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], status_code: int, headers: dict[str, str]
    ) -> None:
        super().__init__(None, status_code, headers)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A client that has shut down its sending side may still read, so do not watch for that.
        # If the client is gone, `send` fails.
        async with aclosing(self._chunks) as chunks:
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


class FileResponse(ChunksResponse):
    """Sends the bytes from `start` to `end` of a file, and closes it."""

    def __init__(
        self, file: int, start: int, end: int, status_code: int, headers: dict[str, str]
    ) -> None:
        super().__init__(chunks_of(file, start, end), status_code, headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._file)


async def chunks_of(file: int, start: int, end: int) -> AsyncGenerator[bytes, None]:
    """The bytes from `start` to `end` of a file, or fewer if it is shorter now."""
    while start < end:
        size = min(CHUNK_BYTES, end - start)
        chunk = await trio.to_thread.run_sync(os.pread, file, size, start)
        if not chunk:
            return
        start += len(chunk)
        yield chunk


async def file_response(
    request: Request, file: int, size: int, headers: dict[str, str]
) -> Response:
    """Send the first `size` bytes of a file, or one range of them (RFC 9110); close `file`.

    `size` is the current size: the file may grow while it is sent. A request for several ranges
    gets the whole file, as the RFC allows; so does any range of an empty file, such as a log of
    which nothing has come: that is no mistake of the client.
    """
    kept = False
    try:
        headers = {"Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff", **headers}
        asked = request.headers.get("Range", "").strip()
        found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked, re.ASCII)
        status, start, end = 200, 0, size
        if size and found is not None and _is_range(found[1], found[2]):
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
            # The file may have been truncated.
            headers["Content-Length"] = str(len(data))
            return Response(data, status, headers)
        count_as_stream(request)
        kept = True
        return FileResponse(file, start, end, status, headers)
    finally:
        if not kept:
            os.close(file)


def _is_range(first: str, last: str) -> bool:
    """Whether this is a valid range; an invalid one is ignored."""
    if first and last:
        return int(first) <= int(last)
    return bool(first or last)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """The first byte of a range, and the one after its last; empty if it is past the end."""
    if first == "":
        return max(0, size - int(last)), size
    return int(first), min(int(last) + 1, size) if last else size
