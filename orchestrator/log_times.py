"""Reads when the host received each line of a log, from the index beside the log.

The index is a sequence of records. A record says that the log's bytes from `offset` to the next
record's offset arrived at a time, or less than 50 ms later. The time `UNKNOWN` says that nobody
followed the log from there on: the gap to the next record is no silence, and bytes that were
fetched later, for example when the log was collected, have no time.

Nothing depends on the index: if it is missing or malformed, all times are unknown.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from operator import le
from pathlib import Path

# Offset in bytes, and milliseconds since 1970 or `UNKNOWN`.
RECORD = struct.Struct("<QQ")
UNKNOWN = 0
# 16 MiB of records. Further ones are not written.
MAX_RECORDS = 1 << 20
# The latest time that a `datetime` can hold.
_LATEST_MS = 253_402_300_799_999


def rfc3339(moment: datetime) -> str:
    """A time in UTC, to the millisecond: 24 characters."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def times_path(log: Path) -> Path:
    """The path of a log's index."""
    return log.with_name(f"{log.name}.times")


class LogTimes:
    """The times in an index. Pure: `feed` takes the bytes of the index."""

    def __init__(self) -> None:
        self._offsets = array("Q")
        self._moments = array("Q")
        self._broken = False
        # How many bytes of the index were fed.
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Take the next records; an incomplete one at the end must be fed again.

        If they are malformed, all times become unknown.
        """
        whole = data[: len(data) // RECORD.size * RECORD.size]
        self.size += len(whole)
        if self._broken:
            return
        words = array("Q", whole)
        if sys.byteorder == "big":
            words.byteswap()
        offsets, moments = words[0::2], words[1::2]
        row = self._offsets[-1:] + offsets
        if all(map(le, row, row[1:])) and max(moments, default=0) <= _LATEST_MS:
            self._offsets += offsets
            self._moments += moments
        else:
            self._broken = True
            self._offsets, self._moments = array("Q"), array("Q")

    def at(self, offset: int) -> datetime | None:
        """When the host received the byte; None if unknown."""
        index = bisect_right(self._offsets, offset) - 1
        moment = self._moments[index] if index >= 0 else UNKNOWN
        return None if moment == UNKNOWN else datetime.fromtimestamp(moment / 1000, UTC)

    def records(self, after: int, limit: int) -> list[tuple[int, int | None]]:
        """The records from the one that covers the byte `after`, at most `limit`.

        Each is an offset in bytes, and milliseconds since 1970, None if unknown.
        """
        start = max(0, bisect_right(self._offsets, after) - 1)
        found = zip(self._offsets[start:], self._moments[start:], strict=True)
        return [
            (offset, None if moment == UNKNOWN else moment)
            for offset, moment in islice(found, limit)
        ]

    def gaps(self, *, until: datetime | None = None) -> Iterator[tuple[float, int | None]]:
        """The gaps between records, in seconds, each with the size of the log during it.

        For a log that is still followed, `until` ends the last gap; its size is None, for all
        bytes.
        """
        before = UNKNOWN
        for offset, moment in zip(self._offsets, self._moments, strict=True):
            if UNKNOWN not in (before, moment):
                yield (moment - before) / 1000, offset
            before = moment
        if until is not None and before != UNKNOWN:
            yield until.timestamp() - before / 1000, None


def read_log_times(log: Path, known: LogTimes | None = None) -> LogTimes:
    """Read the index of a log. Never fails: if it cannot be read, all times are unknown.

    Continues after what is `known`, unless the log was started over.
    """
    times = known or LogTimes()
    try:
        file = os.open(times_path(log), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return times
    try:
        size = min(os.fstat(file).st_size, MAX_RECORDS * RECORD.size)
        if size < times.size:
            times = LogTimes()  # the log was started over
        times.feed(os.pread(file, size - times.size, times.size))
    except OSError:
        pass  # a directory, say
    finally:
        os.close(file)
    return times
