"""The result file of a guest: believed when it is whole and of this attempt."""

from __future__ import annotations

import json

import pytest

from orchestrator.attempt.result import GuestResult, parse_result

RESULT = {
    "schema": 1,
    "contract": 1,
    "nonce": "n",
    "status": "passed",
    "exit_code": 0,
    "finished_at": "2026-01-01T00:00:00+00:00",
    "message": "test passed",
    "log_bytes": 1,
    "log_complete": True,
}


def test_a_whole_result_of_this_attempt_is_believed() -> None:
    """Fields that a newer runner adds are passed over."""
    result = parse_result(json.dumps({**RESULT, "more": 1}).encode(), "n")

    assert isinstance(result, GuestResult)
    assert "passed" == result.status


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "no result file"),
        (b"", "empty"),
        (b" \n", "empty"),
        (json.dumps(RESULT).encode()[:40], "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"[" * 60_000, "cannot be read"),
        (b'{"x":' * 10_000, "cannot be read"),
        (json.dumps({**RESULT, "nonce": "other"}).encode(), "not from this attempt"),
        (json.dumps({**RESULT, "contract": 2}).encode(), "contract 2"),
        (json.dumps({**RESULT, "status": "great"}).encode(), "cannot be read"),
        (json.dumps({**RESULT, "exit_code": 3}).encode(), "exit code 3"),
        (json.dumps({**RESULT, "status": "failed", "exit_code": 256}).encode(), "cannot be read"),
        (json.dumps({**RESULT, "status": "failed", "exit_code": -1}).encode(), "cannot be read"),
        (json.dumps({**RESULT, "log_bytes": 10**30}).encode(), "cannot be read"),
        (json.dumps({**RESULT, "status": "failed"}).encode(), "exit code 0"),
    ],
)
def test_any_other_result_has_a_reason(data: bytes | None, reason: str) -> None:
    """Missing, empty, torn, foreign and contradictory results are never a verdict."""
    found = parse_result(data, "n")

    assert isinstance(found, str)
    assert reason in found
