"""Wakes tasks that wait for news of a job."""

from __future__ import annotations

from functools import partial
from weakref import ref

import trio


class Arrivals:
    """Events that the next entry, or piece of log, of a job sets.

    Get the event before you read what exists; then you miss nothing that arrives meanwhile.
    """

    def __init__(self) -> None:
        self._entries = _Waiting()
        self._logs = _Waiting()

    def entry(self, job: str = "") -> trio.Event:
        """Set when the next entry of the job has been written; ``""`` stands for any job."""
        return self._entries.event(job)

    def log(self, job: str) -> trio.Event:
        """Set when the log has grown, or an entry has been written."""
        return self._logs.event(job)

    def tell(self, job: str) -> None:
        """An entry of the job has been written, or nothing more comes from this process."""
        self._entries.set(job)
        self._entries.set("")
        self.tell_log(job)

    def tell_log(self, job: str) -> None:
        """The job's log has grown."""
        self._logs.set(job)


class _Waiting(dict[str, ref[trio.Event]]):
    """Events by key, as long as somebody waits for them.

    Each entry and each piece of log looks here, and mostly finds nothing; a `WeakValueDictionary`
    takes six times as long for that.
    """

    def event(self, key: str) -> trio.Event:
        found = self.get(key)
        event = None if found is None else found()
        if event is None:
            event = trio.Event()
            self[key] = ref(event, partial(self._drop, key))
        return event

    def set(self, key: str) -> None:
        found = self.pop(key, None)
        event = None if found is None else found()
        if event is not None:
            event.set()

    def _drop(self, key: str, gone: ref[trio.Event]) -> None:
        if self.get(key) is gone:
            del self[key]
