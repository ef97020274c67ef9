"""What a service answers, read as its clients read it."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.service.served import Served


async def events_of(served: Served, job: str, **headers: str) -> list[tuple[int, str, Any]]:
    """The events of one stream: number, type, document."""
    found = []
    async with served.http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "id" in fields:
                document = msgspec.json.decode(fields["data"])
                found.append((int(fields["id"]), fields["event"], document))
                fields = {}
    return found


async def problem(answer: Any, status: int) -> dict[str, Any]:
    assert (status, "application/problem+json") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    document: dict[str, Any] = answer.json()
    assert status == document["status"]
    return document
