"""Decodes requests: the query, the body, the idempotency key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.requests import Request

from orchestrator.job.submission import MAX_KEY
from orchestrator.service.problems import Problem
from states.errors import SpecError
from states.mistakes import mistakes, raise_all

_T = TypeVar("_T")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


def decode_query(given: Mapping[str, str], type: type[_T]) -> _T:
    """Decode a query. `Problem` says what is wrong with it."""
    try:
        return msgspec.convert(dict(given), type, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(
            400, f"the query: {error}", resolution="/v1/openapi.json has its form"
        ) from None


def query_of_stream(request: Request, type: type[_T]) -> _T:
    """Decode the query of a stream. The header Last-Event-ID, if sent, overrides `after`."""
    query = decode_query(request.query_params, type)
    last = request.headers.get("Last-Event-ID")
    return query if last is None else decode_query({"after": last}, type)


async def decode_body(request: Request, type: type[_T]) -> _T:
    """Decode a JSON body. `Problem` says what is wrong with it."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            415,
            "the body is not declared as JSON",
            resolution="send Content-Type: application/json",
        )
    body = await request.body()
    try:
        try:
            return msgspec.json.decode(body, type=type)
        except msgspec.ValidationError as error:
            raise_all(_mistakes(body, type))
            raise Problem(
                422, f"the body: {error}", resolution="/v1/openapi.json has its form"
            ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            400, f"the body is not JSON: {error}", resolution="send JSON in UTF-8"
        ) from None


def _mistakes(body: bytes, type: Any) -> list[SpecError]:
    """What is wrong with a body; nothing if its numbers or its depth are beyond any type.

    `UnicodeDecodeError` if its text is not UTF-8, which a decoder that stops early does not see.
    """
    try:
        return mistakes(msgspec.json.decode(body), type)
    except (msgspec.DecodeError, RecursionError):
        return []


def idempotency_key(request: Request) -> str:
    """The Idempotency-Key of the request; empty if there is none."""
    keys = request.headers.getlist("Idempotency-Key")
    if not keys:
        return ""
    if len(keys) > 1 or not 0 < len(keys[0]) <= MAX_KEY or not keys[0].isprintable():
        raise Problem(
            400,
            "the Idempotency-Key is not valid",
            resolution=f"send one, of 1 to {MAX_KEY} printable characters, or none",
        )
    return keys[0]
