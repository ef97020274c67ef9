"""Whatever is sent to the service, it answers as its document says, and never with 500."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator import JobSpec
from orchestrator.service import api
from orchestrator.service.app import make_app
from orchestrator.service.connections import serve_connections
from orchestrator.service.openapi import openapi
from orchestrator.service.server import tcp_socket
from orchestrator.testing import open_fake

# An event stream or a log that is followed ends when the job does.
EXAMPLES = 40
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@contextmanager
def served() -> Iterator[str]:
    """The address of a service with one job that ended, in a thread of its own."""
    ready: list[str] = []
    begun, stop = threading.Event(), threading.Event()

    async def main() -> None:
        async with open_fake() as (orchestrator, _):
            await orchestrator.submit_and_wait(JobSpec(command="echo one"))
            stopping = trio.Event()
            with tcp_socket("127.0.0.1:0") as door:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve_connections, make_app(orchestrator), door, stopping)
                    host, port = door.getsockname()
                    ready.append(f"http://{host}:{port}")
                    begun.set()
                    await trio.to_thread.run_sync(stop.wait, abandon_on_cancel=True)
                    nursery.cancel_scope.cancel()

    thread = threading.Thread(target=partial(trio.run, main))
    thread.start()
    try:
        assert begun.wait(30)
        yield ready[0]
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, served() as found:
        # What all jobs do is told for an hour otherwise.
        patch.setattr(api, "WATCH_SECS", 0.05)
        yield found


SCHEMA = schemathesis.openapi.from_dict(msgspec.json.decode(openapi()))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_nothing_answers_500(operation: Any, address: str) -> None:
    """And what it answers has a status, a type and a form of the document."""

    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE))
    def fuzz(case: schemathesis.Case) -> None:
        response = case.call(base_url=address, timeout=30)
        case.validate_response(response, checks=CHECKS)

    fuzz()
