"""Reads a guest's result file; trusts it only if it is complete and belongs to this attempt."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec

from orchestrator.contract import contract
from states.usage import Usage, usage_of

SCHEMA = 1


class GuestStatus(enum.StrEnum):
    """The runner's status for the job. `error`: the runner could not run it."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    ERROR = "error"


class GuestResult(msgspec.Struct, frozen=True, kw_only=True):
    """`result.json`, of contract version 1. A newer runner may add fields."""

    schema: int
    contract: int
    nonce: str
    status: GuestStatus
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)]
    finished_at: str
    message: str
    log_bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    log_complete: bool
    started_at: str = ""
    hint: str = ""
    said_of_usage: Any = msgspec.field(name="usage", default=None)

    @property
    def usage(self) -> Usage | None:
        """What the job used, as far as it is known and can be true."""
        return usage_of(self.said_of_usage)


_decoder = msgspec.json.Decoder(GuestResult)


def parse_result(data: bytes | None, nonce: str) -> GuestResult | str:
    """The result, or a message that says why there is no trustworthy one."""
    if data is None:
        return "the guest has no result file"
    if not data.strip():
        return "the guest's result file is empty"
    try:
        result = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return f"the guest's result file cannot be read: {error}"
    if result.nonce != nonce:
        return "the guest's result file is not from this attempt: the nonce differs"
    if (result.schema, result.contract) != (SCHEMA, contract().version):
        return (
            f"the guest's result file has schema {result.schema} and contract {result.contract};"
            f" this pikaci reads schema {SCHEMA} and contract {contract().version}"
        )
    if (result.status is GuestStatus.PASSED) != (result.exit_code == 0):
        return f"the guest's result file says {result.status} with exit code {result.exit_code}"
    return result
