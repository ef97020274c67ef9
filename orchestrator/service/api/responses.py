"""JSON responses."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.responses import Response

from orchestrator.orchestrator import Orchestrator

# Longer lists are encoded in a thread.
FEW = 5
encode = msgspec.json.encode


async def json_list(
    orchestrator: Orchestrator,
    head: bytes,
    items: Sequence[msgspec.Struct],
    tail: bytes,
    status: int = 200,
) -> Response:
    """A document with a list between `head` and `tail`, which may be megabytes long."""

    def join() -> bytes:
        return b"%s%s%s" % (head, b",".join([encode(item) for item in items]), tail)

    body = join() if len(items) <= FEW else await orchestrator.reading.apart(join)
    return Response(body, status_code=status, media_type="application/json")


def json(document: msgspec.Struct) -> Response:
    """One small document."""
    return Response(encode(document), media_type="application/json")
