"""Errors of whoever calls pikaci, beside those of a spec."""

from __future__ import annotations

from states.errors import PikaciError


class UsageError(PikaciError):
    """What was asked for cannot be carried out as it was said; nothing was touched."""


class NoJobs(PikaciError):
    """The job file has no jobs."""
