"""Versions of pikaci that differ in what they let in."""

from __future__ import annotations

import enum
import re
from typing import Annotated, Union

import msgspec
import pytest

from states import events as ev
from states import recorded, rules
from states.errors import SpecError
from states.spec import JobSpec
from tests.property.kinds import Kind

LONGEST_SECS = 50
# Why a job that another version let in does not begin.
REFUSAL = re.compile(
    "another version of pikaci accepted the job, this one refuses it: (timeout_secs|command): .+"
)


class Rules(enum.Enum):
    """What is refused beyond today's rules."""

    TODAY = "nothing"
    SHORTER = "a range that is less wide: of timeout_secs"
    STRICTER = "a check that is new: of exit in a command"


class ShorterSpec(JobSpec, frozen=True, forbid_unknown_fields=True):
    """What the other version decodes into."""

    timeout_secs: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_SECS)] = LONGEST_SECS


class _ShorterSubmitted(ev.Submitted, frozen=True, tag="submitted"):
    spec: ShorterSpec


_DECODER = recorded._decoder()
_OTHERS = (kind for kind in ev.WRITTEN_TYPES if kind is not ev.Submitted)
_SHORTER_DECODER = msgspec.json.Decoder(Union[_ShorterSubmitted, *_OTHERS])


class Rulebook:
    """The rules of all processes. Change them while none lives."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._rules = Rules.TODAY
        self._patch = patch
        self._today = rules._judged
        patch.setattr(rules, "_judged", self._judged)

    def follow(self, rules: Rules) -> None:
        """Have other rules from now on."""
        self._rules = rules
        shorter = rules is Rules.SHORTER
        self._patch.setattr(recorded, "JobSpec", ShorterSpec if shorter else JobSpec)
        decoder = _SHORTER_DECODER if shorter else _DECODER
        self._patch.setattr(recorded, "_decoder", lambda: decoder)

    def refuses(self, kind: Kind) -> bool:
        """Whether jobs of the kind are not let in."""
        command, secs, _ = kind.value
        return self._refused(JobSpec(command=command, timeout_secs=secs)) is not None

    def _refused(self, asked: JobSpec) -> SpecError | None:
        if self._rules is Rules.SHORTER and asked.timeout_secs > LONGEST_SECS:
            return SpecError("timeout_secs", f"is more than {LONGEST_SECS}")
        if self._rules is Rules.STRICTER and "exit" in asked.command:
            return SpecError("command", "has an exit")
        return None

    def _judged(self, asked: JobSpec) -> JobSpec:
        judged = self._today(asked)
        if refused := self._refused(judged):
            raise refused
        return judged
