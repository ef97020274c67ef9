"""The service as an ASGI application."""

from __future__ import annotations

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.operations import OPERATIONS, Operation
from orchestrator.service.api.runs import submit
from orchestrator.service.follow import EVENT_STREAM
from orchestrator.service.held import HeldRuns
from orchestrator.service.limits import Limits
from orchestrator.service.metrics import MEDIA_TYPE, Metrics
from orchestrator.service.openapi import openapi
from orchestrator.service.problems import (
    Problem,
    on_bug,
    on_http_exception,
    on_pikaci_error,
    problem,
)
from orchestrator.service.readiness import Readiness
from orchestrator.service.web.actions import Actions
from orchestrator.service.web.pages import Pages
from orchestrator.service.web.summaries import Summaries
from orchestrator.service.web.views import Views
from states.errors import PikaciError

LOCAL_HOSTS = ("pikaci", "localhost", "127.0.0.1", "[::1]")


def make_app(
    orchestrator: Orchestrator,
    *,
    stopping: trio.Event | None = None,
    streams: int | None = None,
    held: HeldRuns | None = None,
) -> Starlette:
    """Make the application of an orchestrator. Once `stopping` is set, submissions get 503.

    At most `streams` streams are served at once, by default `limits.MAX_STREAMS`. `held` has the
    runs that their submitters hold; without it, none is ever cancelled for that.
    """
    stopping = trio.Event() if stopping is None else stopping
    metrics = Metrics(orchestrator)
    readiness = Readiness(orchestrator, stopping)

    def route(operation: Operation) -> Route:
        async def endpoint(request: Request) -> Response:
            if operation.handler is submit and stopping.is_set():
                raise Problem(
                    503,
                    "the service is stopping",
                    resolution="send it again when the service is back",
                )
            return await operation.handler(orchestrator, request)

        route = Route(operation.path, endpoint, methods=[operation.method])
        if operation.answer == EVENT_STREAM and route.methods:
            route.methods.discard("HEAD")  # added by Starlette; it would last as long as the job
        return route

    async def document(request: Request) -> Response:
        made = await trio.to_thread.run_sync(openapi)
        return Response(made, media_type="application/json")

    async def shown_metrics(request: Request) -> Response:
        """Metrics for Prometheus."""
        return Response(await metrics.render(), headers={"Content-Type": MEDIA_TYPE})

    async def healthz(request: Request) -> Response:
        """Whether the service is alive."""
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        """Whether the service accepts jobs."""
        lines = await readiness.check()
        return PlainTextResponse("".join(f"{line}\n" for line in ("ok", *lines)))

    app = Starlette(
        routes=[
            *map(route, OPERATIONS),
            *Pages(orchestrator, Summaries(orchestrator)).routes(),
            *Views(orchestrator).routes(),
            *Actions(orchestrator, stopping).routes(),
            Route("/v1/openapi.json", document),
            Route("/metrics", shown_metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ],
        middleware=[Middleware(Limits, streams=streams)],
        exception_handlers={
            PikaciError: on_pikaci_error,
            HTTPException: on_http_exception,
            Exception: on_bug,
        },
    )
    app.state.held = HeldRuns(orchestrator) if held is None else held
    app.router.redirect_slashes = False  # each resource has one path
    return app


class LocalOnly:
    """ASGI middleware: 403 for requests that another site's page makes in a browser.

    If a user forwards the socket to a local port, every web page can reach that port under a host
    name of its own (DNS rebinding). Our own clients never send such a name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            origin = headers.get(b"origin", b"").rpartition(b"//")[2]
            for name in (headers.get(b"host", b""), origin):
                if name and _host(name.decode("latin-1")) not in LOCAL_HOSTS:
                    refused = Problem(
                        403,
                        "this request is not from a local client",
                        resolution=f"send one of these as Host: {', '.join(LOCAL_HOSTS)}",
                    )
                    await problem(refused, scope)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _host(name: str) -> str:
    host, colon, port = name.rpartition(":")
    host = host if colon and port.isdigit() else name
    return host.lower().removesuffix(".")
