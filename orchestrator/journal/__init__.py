"""The journal: every event, durable before anyone sees it and before the next effect.

SQLite with a write-ahead log and full synchronisation. Several processes may open a journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from states.lazy import lazy

if TYPE_CHECKING:
    from orchestrator.journal.errors import (
        JobUnreadable,
        JournalDamaged,
        JournalError,
        JournalUnwritable,
        KeptFull,
        NotTheWriter,
    )
    from orchestrator.journal.journal import Journal, open_journal
    from orchestrator.journal.read_only import read_journal
    from orchestrator.journal.reader import JournalReader
    from orchestrator.journal.rows import JobRow, Lease

__all__ = [
    "JobRow",
    "JobUnreadable",
    "Journal",
    "JournalDamaged",
    "JournalError",
    "JournalReader",
    "JournalUnwritable",
    "KeptFull",
    "Lease",
    "NotTheWriter",
    "open_journal",
    "read_journal",
]

# Only a process that writes needs trio.
_HOMES = {
    "orchestrator.journal.errors": (
        "JobUnreadable",
        "JournalDamaged",
        "JournalError",
        "JournalUnwritable",
        "KeptFull",
        "NotTheWriter",
    ),
    "orchestrator.journal.journal": ("Journal", "open_journal"),
    "orchestrator.journal.read_only": ("read_journal",),
    "orchestrator.journal.reader": ("JournalReader",),
    "orchestrator.journal.rows": ("JobRow", "Lease"),
}


if not TYPE_CHECKING:  # to mypy every name would be one of ours
    __getattr__ = lazy(__name__, _HOMES)
