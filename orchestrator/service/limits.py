"""What a request may cost: bytes of its body, time to send it; and how many there are at once."""

from __future__ import annotations

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.service.problems import Problem, problem

MAX_BODY_BYTES = 4 << 20
MAX_REQUESTS = 512
BODY_SECS = 30.0


class _BodyTooLarge(Exception):
    pass


class _TooSlow(Exception):
    pass


class Limits:
    """ASGI middleware: 413, 503 and 408 for who wants too much.

    `/healthz` is answered however busy the service is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/healthz":
            await self._app(scope, receive, send)
            return
        if self._requests >= MAX_REQUESTS:
            busy = Problem(503, f"{MAX_REQUESTS} requests are being answered")
            await problem(busy)(scope, receive, send)
            return
        self._requests += 1
        try:
            await self._limited(scope, receive, send)
        finally:
            self._requests -= 1

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0
        begun = whole = False
        deadline = trio.current_time() + BODY_SECS

        async def limited_receive() -> Message:
            nonlocal taken, whole
            if whole:
                return await receive()  # waits for the client to go away
            with trio.move_on_at(deadline) as scope:
                message = await receive()
            if scope.cancelled_caught:
                raise _TooSlow
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if taken > MAX_BODY_BYTES:
                raise _BodyTooLarge
            return message

        async def noted_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, limited_receive, noted_send)
        except* _BodyTooLarge:
            if not begun:
                error = Problem(413, f"the body has more than {MAX_BODY_BYTES} bytes")
                await problem(error)(scope, receive, send)
        except* _TooSlow:
            if not begun:
                error = Problem(408, f"the body did not come within {BODY_SECS:g} s")
                await problem(error)(scope, receive, send)
