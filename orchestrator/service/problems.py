"""Answers errors: as `application/problem+json` to programs, as a page to browsers."""

from __future__ import annotations

import logging

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from orchestrator.errors import KeyTaken, NotFound, SnapshotError, UsageError
from orchestrator.incus.errors import DaemonUnreachable, IncusMissing
from orchestrator.job.backlog import QueueFull
from orchestrator.journal import JobUnreadable, JournalError
from orchestrator.service.types import ProblemDocument
from orchestrator.service.web.rendering import page
from orchestrator.session.away import HostAway
from states.errors import PikaciError, SpecError

# The first match counts. 503 is for errors that a retry may cure.
_STATUS: tuple[tuple[type[PikaciError], int], ...] = (
    (NotFound, 404),
    (KeyTaken, 409),
    (SpecError, 422),
    (SnapshotError, 422),
    (QueueFull, 429),
    (UsageError, 400),
    (DaemonUnreachable, 503),
    (IncusMissing, 503),
    (HostAway, 503),
    (JobUnreadable, 500),
    (JournalError, 503),
)
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECS = 5
_TRY_AGAIN = (429, 503)
_WORDS = {
    404: ("there is no such resource", "GET /v1/openapi.json lists the resources"),
    405: ("this resource does not support this method", "the header Allow lists those it supports"),
}


_log = logging.getLogger(__name__)


class Problem(PikaciError):
    """An error of the service, with its HTTP status."""

    def __init__(self, status: int, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.status = status


def problem(error: PikaciError, scope: Scope) -> Response:
    """The JSON answer for an error."""
    document = _document(error)
    log_refusal(scope, document)
    return _answer(document)


def log_refusal(scope: Scope, document: ProblemDocument) -> None:
    """Log a refused request."""
    client = scope.get("client")
    about = {
        "status": document.status,
        "method": scope["method"],
        "path": scope["path"][:200],
        "client": client[0] if client else "unix",
        "title": document.title[:500],
    }
    level = logging.WARNING if document.status >= 500 else logging.INFO
    _log.log(level, "refused", extra={"about": about})


def _document(error: PikaciError) -> ProblemDocument:
    if isinstance(error, Problem):
        status = error.status
    else:
        status = next((code for kind, code in _STATUS if isinstance(error, kind)), 503)
    return ProblemDocument(
        status=status, title=error.headline, detail=error.details, resolution=error.resolution
    )


async def on_pikaci_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PikaciError)
    document = _document(error)
    log_refusal(request.scope, document)
    return _error_response(request, document)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer errors of Starlette's router: an unknown path, or an unsupported method."""
    assert isinstance(error, HTTPException)
    title, resolution = _WORDS.get(error.status_code, (error.detail, ""))
    document = ProblemDocument(status=error.status_code, title=title, resolution=resolution)
    log_refusal(request.scope, document)
    return _error_response(request, document, dict(error.headers or {}))


async def on_bug(request: Request, error: Exception) -> Response:
    """Answer a bug without internals; the log has the traceback."""
    return _error_response(
        request,
        ProblemDocument(
            status=500,
            title="internal error",
            resolution="this is a bug in pikaci: please report it with the service's log",
        ),
    )


def wants_page(headers: Headers) -> bool:
    """Whether a person is asking: a browser that opens an address accepts HTML."""
    return "text/html" in headers.get("Accept", "")


def _error_response(
    request: Request, document: ProblemDocument, headers: dict[str, str] | None = None
) -> Response:
    """A page for a browser, the JSON document for a program."""
    if not wants_page(request.headers):
        return _answer(document, headers)
    answer = page("problem.html", status=document.status, problem=document)
    answer.headers.update(_with_time(document.status, headers))
    return answer


def _answer(document: ProblemDocument, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(document),
        status_code=document.status,
        media_type=MEDIA_TYPE,
        headers=_with_time(document.status, headers),
    )


def _with_time(status: int, headers: dict[str, str] | None) -> dict[str, str]:
    again = {"Retry-After": str(RETRY_AFTER_SECS)} if status in _TRY_AGAIN else {}
    return {**(headers or {}), **again}
