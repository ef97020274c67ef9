"""Makes the OpenAPI document from the table of operations and their types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from orchestrator.service.api.operations import OPERATIONS, Operation
from orchestrator.service.follow import EVENT_STREAM
from orchestrator.service.types import Move, ProblemDocument

_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "description": "The error, and what to do about it",
    "content": {
        "application/problem+json": {"schema": {"$ref": _REF.format(name="ProblemDocument")}}
    },
}
_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "On TCP, with the token of `--token-file`; the unix socket needs none",
}
_HEADERS = {
    ("POST", "/v1/runs"): ("Idempotency-Key", {"type": "string", "maxLength": 200}),
    ("GET", "/v1/events"): ("Last-Event-ID", {"type": "integer", "minimum": 0}),
    ("GET", "/v1/jobs/{job}/events"): ("Last-Event-ID", {"type": "integer", "minimum": 0}),
    ("GET", "/v1/jobs/{job}/log/events"): (
        "Last-Event-ID",
        {"type": "string", "pattern": r"^[0-9]{1,9}\.[0-9]{1,18}$"},
    ),
    ("GET", "/v1/jobs/{job}/log"): ("Range", {"type": "string"}),
    ("GET", "/v1/jobs/{job}/artifacts/{path}"): ("Range", {"type": "string"}),
}


@cache
def openapi() -> bytes:
    """The document, as JSON."""
    types: list[type[Any]] = [Move, ProblemDocument]
    for operation in OPERATIONS:
        types += [t for t in (operation.answer, operation.body) if isinstance(t, type)]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        path = operation.path.replace(":path}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation, path)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "pikaci",
                "version": version("pikaci"),
                "description": "Runs CI jobs in throw-away Incus guests.",
            },
            "paths": paths,
            "components": {"schemas": components, "securitySchemes": {"token": _TOKEN}},
            "security": [{}, {"token": []}],
        }
    )


def _describe(operation: Operation, path: str) -> dict[str, Any]:
    media, schema = (
        ("application/json", {"$ref": _REF.format(name=operation.answer.__name__)})
        if isinstance(operation.answer, type)
        else (operation.answer, {"type": "string"})
    )
    # OpenAPI 3.1 cannot describe the events of a stream.
    content = {} if media == EVENT_STREAM else {"schema": schema}
    good = {"description": operation.summary, "content": {media: content}}
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "parameters": list(_parameters(operation, path)),
        "responses": {str(operation.status): good, "default": _PROBLEM},
    }
    if operation.path in ("/v1/jobs/{job}/events", "/v1/jobs/{job}/log/events"):
        described["responses"]["204"] = {
            "description": "The job has ended, and there are no more events"
        }
    if operation.status == 201:
        described["responses"]["200"] = {**good, "description": "The run was submitted before"}
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": _REF.format(name=operation.body.__name__)}}
            },
        }
    return described


def _parameters(operation: Operation, path: str) -> Sequence[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    (_,), components = msgspec.json.schema_components([operation.query], ref_template=_REF)
    properties = components[operation.query.__name__].get("properties", {})
    found += [
        {"name": name, "in": "query", "schema": _inline(schema, components)}
        for name, schema in properties.items()
    ]
    if header := _HEADERS.get((operation.method, path)):
        found.append({"name": header[0], "in": "header", "schema": header[1]})
    return found


def _inline(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """A query parameter's schema, with references resolved, and without null."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _inline(choice, components)
    if ref := schema.get("$ref"):
        return dict(components[ref.rpartition("/")[2]])
    return schema
