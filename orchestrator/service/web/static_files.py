"""Styles, scripts and icons. Their URLs contain a digest of them all, so browsers cache them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from orchestrator.errors import NotFound

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def contents() -> dict[str, bytes]:
    """The files, by name."""
    folder = files("orchestrator.service.web") / "static"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _TYPES
    }


@cache
def version() -> str:
    """A digest of all files."""
    digest = hashlib.sha256()
    for name, content in sorted(contents().items()):
        digest.update(b"%s %d\n%s" % (name.encode(), len(content), content))
    return digest.hexdigest()[:16]


async def static(request: Request) -> Response:
    """A file of this version. Scripts import each other by relative names."""
    name = request.path_params["name"]
    content = contents().get(name)
    if content is None or request.path_params["version"] != version():
        raise NotFound("there is no such file", resolution="reload the page")
    headers = {
        "Content-Type": _TYPES[name.rpartition(".")[2]],
        "Cache-Control": "public, max-age=31536000, immutable",
        "ETag": f'"{version()}"',
        "X-Content-Type-Options": "nosniff",
        # A worker has the policy of its script.
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'",
    }
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
