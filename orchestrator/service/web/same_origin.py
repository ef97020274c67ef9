"""Forms are taken from our own pages alone."""

from __future__ import annotations

from starlette.requests import Request

from orchestrator.service.problems import Problem


def require_same_origin(request: Request) -> None:
    """403 for what another page than one of this very service sends, be it of the same host.

    A browser says where a POST comes from, and does not let a page lie about it. Who says nothing
    is no browser, and has the API.
    """
    origin = request.headers.get("Origin", "")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site != "same-origin" or origin.partition("://")[2] != request.headers.get("Host"):
        raise Problem(
            403,
            "this was not sent by a page of this service",
            resolution="load the page again; programs use the API, with the token",
        )
