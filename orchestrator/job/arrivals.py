"""Wakes those who wait for what happens to a job."""

from __future__ import annotations

from weakref import WeakValueDictionary

import trio


class Arrivals:
    """Events that are set by the next entry, or piece of log, of a job.

    Take one before you look at what is there: then nothing that comes meanwhile is missed.
    """

    def __init__(self) -> None:
        # Only those that somebody waits for.
        self._entries: WeakValueDictionary[str, trio.Event] = WeakValueDictionary()
        self._logs: WeakValueDictionary[str, trio.Event] = WeakValueDictionary()

    def entry(self, job: str = "") -> trio.Event:
        """Set when the next entry of the job has been written; of any job, by ``""``."""
        return self._entries.setdefault(job, trio.Event())

    def log(self, job: str) -> trio.Event:
        """Set when the log has grown, or an entry has been written."""
        return self._logs.setdefault(job, trio.Event())

    def tell(self, job: str) -> None:
        """An entry of the job has been written, or nothing more comes from this process."""
        for waiting in (self._entries.pop(job, None), self._entries.pop("", None)):
            if waiting is not None:
                waiting.set()
        self.tell_log(job)

    def tell_log(self, job: str) -> None:
        """The job's log has grown."""
        if (waiting := self._logs.pop(job, None)) is not None:
            waiting.set()
