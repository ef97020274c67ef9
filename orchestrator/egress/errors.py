"""Why a connection does not come about; each is an answer of the proxy."""

from __future__ import annotations


class NoConnection(Exception):
    """The reason is for the client, in one line of ASCII; `status` is that of the answer.

    `address` is the one that the name leads to, where that is the reason.
    """

    status = 502

    def __init__(self, reason: str, *, address: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.address = address


class Refused(NoConnection):
    """The job's rules do not allow it."""

    status = 403


class NotARequest(NoConnection):
    """What came is nothing that a proxy can serve."""

    status = 400


class TooLate(NoConnection):
    """It took too long."""

    status = 504
