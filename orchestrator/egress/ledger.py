"""Keeps account of a job's connections, in a bounded number of entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import trio

# So many are written down one by one; more are summed up by host, port and reason.
MOST_ENTRIES = 200
MOST_SUMS = 100
MOST_REASON = 300


@dataclass
class Entry:
    """A connection, or `count` of them; times in seconds.

    `host` is "" for what was no request. `address` is the one that was connected to, `proxy` the
    host's own proxy in between. `refused`: by the rules. `reason` says why it came to nothing.
    """

    host: str = ""
    port: int = 0
    address: str = ""
    proxy: str = ""
    refused: bool = False
    reason: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    secs: float = 0.0
    count: int = 1


class Ledger:
    """Passes entries to `write`, which must not wait; `close` writes the sums."""

    def __init__(self, write: Callable[[Entry], None]) -> None:
        self._write = write
        self._written = 0
        self._sums: dict[tuple[str, int, bool, str], Entry] = {}
        self._summed = 0
        self._flush_at = MOST_ENTRIES

    @contextmanager
    def entry(self) -> Iterator[Entry]:
        """An entry for what happens in the block; one that asked for nothing is left out."""
        entry = Entry()
        began = trio.current_time()
        try:
            yield entry
        finally:
            entry.secs = trio.current_time() - began
            if entry.host or entry.reason:
                self.add(entry)

    def add(self, entry: Entry) -> None:
        """Write the entry, or add it to a sum."""
        entry.reason = entry.reason[:MOST_REASON]
        if self._written < MOST_ENTRIES:
            self._written += 1
            self._write(entry)
            return
        key = (entry.host, entry.port, entry.refused, entry.proxy)
        if key not in self._sums and len(self._sums) >= MOST_SUMS:
            entry = replace(entry, host="*", port=0, address="", reason="many hosts")
            key = ("*", 0, entry.refused, "")
        there = self._sums.get(key)
        if there is None:
            self._sums[key] = entry
        else:
            there.count += entry.count
            there.sent_bytes += entry.sent_bytes
            there.received_bytes += entry.received_bytes
            there.secs += entry.secs
        self._summed += 1
        # Ever more rarely, so that their number stays bounded, and little is lost if pikaci dies.
        if self._summed >= self._flush_at:
            self._flush_at *= 2
            self._flush()

    def close(self) -> None:
        """Write what is summed up."""
        self._flush()

    def _flush(self) -> None:
        for entry in self._sums.values():
            self._write(entry)
        self._sums.clear()
