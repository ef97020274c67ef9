"""Every error that pikaci shows to a person has the same three parts."""

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

    `key` is the spec's field ("timeout_secs", "mounts[1].path"), so that whoever read the
    spec from a file can say where it stands.
    """

    def __init__(self, key: str, problem: str, *, allowed: str = "") -> None:
        super().__init__(problem, resolution=allowed)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: {self.brief}" if self.key else self.brief


class WritableWorkspace(SpecError):
    """The named case of a rejected job: the workspace is always read-only."""

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
    """An event that the job's state has no transition for; the job is unchanged."""


class EntryError(PikaciError):
    """A stored event or note cannot be read. One job's; the others are as they were."""


class NewerEntry(EntryError):
    """A newer pikaci wrote the event: its type, or its version, is not known here."""


class TraceError(PikaciError):
    """A trace cannot be read or replayed: a gap, a repeated, foreign or illegal event."""
