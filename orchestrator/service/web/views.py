"""Shows artifacts in the browser, and the tests of a job.

A guest wrote them. Text and test reports are escaped into a page of ours. HTML and pictures are
sent as they are, but sandboxed: the browser gives them an origin of their own, runs no script of
theirs, and loads nothing for them.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.attempt.junit import read_reports
from orchestrator.orchestrator import Orchestrator
from orchestrator.service.api.decoding import Count, decode_query
from orchestrator.service.artifacts import open_artifact
from orchestrator.service.files import file_response
from orchestrator.service.web.rendering import page
from orchestrator.terminal import plain_lines
from states.testcases import CaseOutcome

MAX_TEXT = 256 << 10
MAX_REPORT = 1 << 20
MAX_CASES = 500
_SNIFFED = 8192
# What a browser may show as it is. SVG is not among them: it is text.
_MEDIA = {
    "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
}
SANDBOX = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:;"
        " form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class CasesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`outcome` filters. `after` is the number of the last test of the previous page."""

    outcome: CaseOutcome | None = None
    after: Count = 0


@dataclass(frozen=True)
class Views:
    """The pages of one orchestrator's artifacts and tests."""

    orchestrator: Orchestrator

    def routes(self) -> list[Route]:
        """The routes of the application."""

        def get(path: str, handler: Callable[[Request], Awaitable[Response]]) -> Route:
            return Route(path, handler, methods=["GET"])

        return [
            get("/jobs/{job}/artifacts/{path:path}", self.artifact),
            get("/jobs/{job}/tests", self.tests),
        ]

    async def artifact(self, request: Request) -> Response:
        """An artifact: as text, as a test report, or sandboxed as it is."""
        job = await self.orchestrator.find_job(request.path_params["job"])
        path: str = request.path_params["path"]
        directory = await job.fetch_directory() / "artifacts"
        apart = self.orchestrator.reading.apart
        media = _MEDIA.get(path.rpartition(".")[2].lower())
        if media is not None:
            file = await apart(partial(open_artifact, directory, path))
            size = os.fstat(file).st_size
            return await file_response(request, file, size, {**SANDBOX, "Content-Type": media})
        found = await apart(partial(_read, directory, path))
        return await self._page(request, "artifact.html", job=job.id, path=path, **found)

    async def tests(self, request: Request) -> Response:
        """All tests of a job, in pages; those that did not pass are a filter away."""
        query = decode_query(
            {key: value for key, value in request.query_params.items() if value}, CasesQuery
        )
        handle = await self.orchestrator.find_job(request.path_params["job"])
        job = await handle.look()
        outcomes = (query.outcome,) if query.outcome is not None else ()
        journal = self.orchestrator.journal
        cases = await self.orchestrator.reading.journal(
            lambda: journal.cases(job.id, outcomes=outcomes, after=query.after, limit=MAX_CASES + 1)
        )
        return await self._page(
            request,
            "tests.html",
            job=job,
            query=query,
            outcomes=list(CaseOutcome),
            cases=[case for _, case in cases[:MAX_CASES]],
            next=cases[MAX_CASES - 1][0] if len(cases) > MAX_CASES else None,
        )

    async def _page(self, request: Request, template: str, **values: Any) -> Response:
        frame = {
            "root": self.orchestrator.root.path.name,
            "logged_in": request.scope.get("pikaci.cookie", False),
        }
        return await self.orchestrator.reading.apart(partial(page, template, **frame, **values))


def _read(directory: Path, path: str) -> dict[str, Any]:
    """What the page shows of an artifact: `cases` of a test report, `text`, or only its size."""
    file = open_artifact(directory, path)
    try:
        size = os.fstat(file).st_size
        start = os.pread(file, MAX_TEXT, 0)
    finally:
        os.close(file)
    shown: dict[str, Any] = {"size": size, "text": None, "cases": (), "cut": size > MAX_TEXT}
    if path.lower().endswith(".xml") and size <= MAX_REPORT:
        reports = read_reports(directory, (path,), ())
        if reports.found and reports.cases:
            return {
                **shown,
                "cases": reports.cases[:MAX_CASES],
                "more": len(reports.cases) - MAX_CASES,
            }
    if b"\0" not in start[:_SNIFFED]:
        shown["text"] = plain_lines(start.decode("utf-8", "replace"))
    return {**shown, "more": 0}
