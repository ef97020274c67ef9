"""Errors that pikaci shows to people: all have the same three parts."""

from __future__ import annotations

from collections.abc import Sequence

# More of them are counted only.
MOST_MISTAKES = 50


class PikaciError(Exception):
    """What happened (`brief`), the evidence (`details`), what to do next (`resolution`).

    As text it is all but the evidence; `headline` is what happened, and where.
    """

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return f"{self.headline}; {self.resolution}" if self.resolution else self.headline

    @property
    def headline(self) -> str:
        """What happened, on its own, where the resolution is shown in another place."""
        return self.brief


class SpecError(PikaciError):
    """A job cannot be run as it is described; nothing was touched.

    `key` is the field of the spec ("timeout_secs", "mounts[1].path"), so that a caller that read
    the spec from a file can point to it.
    """

    def __init__(self, key: str, problem: str, *, allowed: str = "") -> None:
        super().__init__(problem, resolution=allowed)
        self.key = key

    def __str__(self) -> str:
        return self.line()

    @property
    def headline(self) -> str:
        """The key, and what is wrong with it."""
        return f"{self.key} {self.brief}" if self.key else self.brief

    def below(self, parent: str) -> SpecError:
        """The same mistake, with the key of the table around its own."""
        return SpecError(f"{parent}.{self.key}", self.brief, allowed=self.resolution)

    def line(self) -> str:
        """All of it on one line: key, what is wrong, what is allowed."""
        allowed = f"; allowed: {self.resolution}" if self.resolution else ""
        return f"{self.headline}{allowed}"


class SpecErrors(SpecError):
    """Several mistakes; `details` has a line for each, `key` is that of the first."""

    def __init__(self, mistakes: Sequence[SpecError]) -> None:
        super().__init__(mistakes[0].key, f"{len(mistakes)} mistakes")
        self.mistakes = tuple(mistakes)
        self.details = mistake_lines(mistakes)

    def __str__(self) -> str:
        return f"{self.brief}\n{self.details}"

    @property
    def headline(self) -> str:
        """How many there are."""
        return self.brief


def mistake_lines(mistakes: Sequence[SpecError], where: str = "") -> str:
    """A line for each mistake, up to a bound; each begins with `where`."""
    lines = [f"{where}{mistake.line()}" for mistake in mistakes[:MOST_MISTAKES]]
    if (more := len(mistakes) - len(lines)) > 0:
        lines.append(f"{where}and {more} more")
    return "\n".join(lines)


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

    @property
    def headline(self) -> str:
        """Exactly the words that a caller may look for."""
        return self.MESSAGE


class IllegalEvent(PikaciError):
    """The job's state has no transition for this event; the job is unchanged."""


class EntryError(PikaciError):
    """A stored event or note cannot be read. Only its own job is affected."""


class NewerEntry(EntryError):
    """A newer pikaci wrote the event: this one does not know its type or its version."""


class TraceError(PikaciError):
    """A trace cannot be read or replayed: a missing, repeated, illegal or foreign event."""
