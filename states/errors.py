"""Errors that pikaci shows to people: all have the same three parts."""

from __future__ import annotations


class PikaciError(Exception):
    """What happened (`brief`), the evidence (`details`), what to do next (`resolution`)."""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution


class SpecError(PikaciError):
    """A job cannot be run as it is described; nothing was touched.

    `key` is the field of the spec ("timeout_secs", "mounts[1].path"), so that a caller that read
    the spec from a file can point to it.
    """

    def __init__(self, key: str, problem: str, *, allowed: str = "") -> None:
        super().__init__(problem, resolution=allowed)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: {self.brief}" if self.key else self.brief


class WritableWorkspace(SpecError):
    """The job asks for a writable workspace; the workspace is always read-only."""

    MESSAGE = "remote Linux VM backend `incus` does not support writable workspace jobs"

    def __init__(self) -> None:
        super().__init__(
            "writable_workspace",
            self.MESSAGE,
            allowed="`scratch = true` gives the job a throw-away writable copy at the same path",
        )

    def __str__(self) -> str:
        return self.MESSAGE


class IllegalEvent(PikaciError):
    """The job's state has no transition for this event; the job is unchanged."""


class EntryError(PikaciError):
    """A stored event or note cannot be read. Only its own job is affected."""


class NewerEntry(EntryError):
    """A newer pikaci wrote the event: this one does not know its type or its version."""


class TraceError(PikaciError):
    """A trace cannot be read or replayed: a missing, repeated, illegal or foreign event."""
