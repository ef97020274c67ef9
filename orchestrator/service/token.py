"""Authentication: programs send a token; browsers send a cookie derived from it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.service.limits import read_form
from orchestrator.service.problems import Problem, log_refusal, problem, wants_page
from orchestrator.service.types import ProblemDocument
from orchestrator.service.web.rendering import page
from orchestrator.service.web.same_origin import require_same_origin

DAYS = 30
_MAX_FORM = 8192
# Reveals nothing about jobs.
_OPEN = ("/healthz",)
_STATIC = "/static/"


class RequireToken:
    """ASGI middleware: requires `Authorization: Bearer TOKEN`, or the cookie of a login; else 401.

    `accept` replaces the tokens. A cookie is valid as long as its token.

    /healthz, styles and scripts are public. A browser without the cookie gets the login form, which
    takes the token and sets a cookie that is valid for `DAYS` days. The service stores nothing: the
    cookie is signed with the token. Browsers send cookies to all ports of a host, so the cookie's
    name is unique to the service, and forms and scripts of other ports are refused.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._keys: tuple[bytes, ...] = ()
        self.accept((token,))

    def accept(self, tokens: Sequence[str]) -> None:
        """From now on these are the tokens, and no others."""
        self._keys = tuple(token.encode() for token in tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN or scope["path"].startswith(_STATIC):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        known = self._key_of(given.strip().encode("latin-1"))
        if scheme.lower() == "bearer" and known is not None:
            await self._app(scope, receive, send)
            return
        answer = await self._answer(request)
        if answer is None:
            await self._app({**scope, "pikaci.cookie": True}, receive, send)
        else:
            await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """The answer to a request without a token; None if the browser is logged in."""
        try:
            if (request.method, request.scope["path"]) == ("POST", "/login"):
                return await self._log_in(request)
            if not self._logged_in(request):
                return self._refused(request)
            if (request.method, request.scope["path"]) == ("POST", "/logout"):
                return self._log_out(request)
            if request.method not in ("GET", "HEAD"):
                require_same_origin(request)
        except Problem as error:
            return problem(error, request.scope)
        return None

    def _logged_in(self, request: Request) -> bool:
        try:
            cookies = SimpleCookie(request.headers.get("Cookie", ""))
        except CookieError:
            return False
        for key in self._keys:
            found = cookies.get(_cookie(key))
            end, _, proof = found.value.partition("-") if found else ("", "", "")
            known = hmac.compare_digest(proof.encode(), _proof(key, f"until {end}").encode())
            if known and end.isdecimal() and int(end) > time.time():
                return True
        return False

    def _key_of(self, given: bytes) -> bytes | None:
        """The key that is this one; all are compared, so that the time tells nothing."""
        same = [key for key in self._keys if hmac.compare_digest(given, key)]
        return same[0] if same else None

    async def _log_in(self, request: Request) -> Response:
        require_same_origin(request)
        form = await read_form(request, _MAX_FORM)
        token = form.get("token", [""])[0].strip()
        there = form.get("next", ["/"])[0]
        key = self._key_of(token.encode())
        if key is None:
            log_refusal(request.scope, ProblemDocument(status=401, title="wrong token"))
            return page("login.html", status=401, next=there, wrong=True)
        end = int(time.time()) + DAYS * 86_400
        answer = RedirectResponse(_own(there), status_code=303)
        answer.set_cookie(
            _cookie(key),
            f"{end}-{_proof(key, f'until {end}')}",
            max_age=DAYS * 86_400,
            httponly=True,
            samesite="strict",
        )
        return answer

    def _log_out(self, request: Request) -> Response:
        require_same_origin(request)
        answer = RedirectResponse("/", status_code=303)
        for key in self._keys:
            answer.delete_cookie(_cookie(key), httponly=True, samesite="strict")
        return answer

    def _refused(self, request: Request) -> Response:
        if request.method == "GET" and wants_page(request.headers):
            path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
            there = "/" if path == "/login" else path + (f"?{query}" if query else "")
            return page("login.html", status=401, next=there, wrong=False)
        answer = problem(
            Problem(401, "a token is required", resolution="send Authorization: Bearer TOKEN"),
            request.scope,
        )
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer


def _proof(key: bytes, words: str) -> str:
    return hmac.new(key, f"pikaci page: {words}".encode(), hashlib.sha256).hexdigest()


def _cookie(key: bytes) -> str:
    """The name of the cookie."""
    return f"pikaci-{_proof(key, 'name')[:12]}"


def _own(address: str) -> str:
    """The address if it is on this service, else that of the board."""
    safe = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if safe and address.isprintable() else "/"
