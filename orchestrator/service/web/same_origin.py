"""Refuses forms that were not sent by our own pages."""

from __future__ import annotations

from starlette.requests import Request

from orchestrator.service.problems import Problem


def require_same_origin(request: Request) -> None:
    """403 unless the request comes from a page of this service; another port is another origin.

    A browser sends the origin of a POST, and a page cannot forge it. A client that sends none is
    not a browser, and can use the API.
    """
    origin = request.headers.get("Origin", "")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if site != "same-origin" or origin.partition("://")[2] != request.headers.get("Host"):
        raise Problem(
            403,
            "this request was not sent by a page of this service",
            resolution="reload the page; in a program, use the API with the token",
        )
