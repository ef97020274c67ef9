"""The jobs of a world."""

from __future__ import annotations

import enum

from states.outcome import Verdict


class Kind(enum.Enum):
    """A job: its command, its limit in seconds, and what it must come to."""

    PASSES = ("echo one; echo two", 100, Verdict.PASSED)
    SLEEPS = ("echo one; sleep 20; echo two", 100, Verdict.PASSED)
    FAILS = ("echo one; exit 3", 100, Verdict.FAILED)
    FAILS_LATE = ("echo one; sleep 20; exit 3", 100, Verdict.FAILED)
    TIMES_OUT = ("echo one; sleep 100; echo two", 10, Verdict.TIMED_OUT)

    @property
    def log(self) -> bytes:
        return b"one\ntwo\n" if self.value[2] is Verdict.PASSED else b"one\n"
