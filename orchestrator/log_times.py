"""When the host received each line of a log, from the index that lies beside it.

The index is a row of records. A record says that the log's bytes from `offset` on, up to the next
record's offset, were received at a moment, or less than 50 ms after it. `UNKNOWN` in place of the
moment says that nobody followed the log from there on: the time to the next record is no silence,
and bytes that were fetched later, as with a log that is collected, have no time.

Nothing depends on an index: one that is missing, or is none, says nothing.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from operator import le
from pathlib import Path

# Offset in bytes, and milliseconds since 1970 or `UNKNOWN`.
RECORD = struct.Struct("<QQ")
UNKNOWN = 0
# 16 MiB: the record that would be one more is never written.
MAX_RECORDS = 1 << 20
# The last one that a `datetime` can hold.
_LATEST_MS = 253_402_300_799_999


def rfc3339(moment: datetime) -> str:
    """A moment in UTC, to the millisecond: 24 characters."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def times_path(log: Path) -> Path:
    """Where a log's index is."""
    return log.with_name(f"{log.name}.times")


class LogTimes:
    """The moments that an index holds. Pure: `feed` takes the index's bytes as they are."""

    def __init__(self) -> None:
        self._offsets = array("Q")
        self._moments = array("Q")
        self._broken = False
        # How many bytes of the index are taken.
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Take the next records; half a record at the end is left for the next time.

        When they are no records of ours, nothing is known any more.
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
        """When the host received the byte; None when that is not known."""
        index = bisect_right(self._offsets, offset) - 1
        moment = self._moments[index] if index >= 0 else UNKNOWN
        return None if moment == UNKNOWN else datetime.fromtimestamp(moment / 1000, UTC)

    def gaps(self, *, until: datetime | None = None) -> Iterator[tuple[float, int | None]]:
        """The times in which nothing came, in seconds, and how many bytes there were by then.

        `until` ends the last one of a log that is still followed, behind all of its bytes (None).
        """
        before = UNKNOWN
        for offset, moment in zip(self._offsets, self._moments, strict=True):
            if UNKNOWN not in (before, moment):
                yield (moment - before) / 1000, offset
            before = moment
        if until is not None and before != UNKNOWN:
            yield until.timestamp() - before / 1000, None


def read_log_times(log: Path, known: LogTimes | None = None) -> LogTimes:
    """What the index of a log says. Never an error: of an index that cannot be read, nothing.

    What is `known` is read no second time, unless the log began anew.
    """
    times = known or LogTimes()
    try:
        file = os.open(times_path(log), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return times
    try:
        size = min(os.fstat(file).st_size, MAX_RECORDS * RECORD.size)
        if size < times.size:
            times = LogTimes()  # the log began anew
        times.feed(os.pread(file, size - times.size, times.size))
    except OSError:
        pass  # a directory, say
    finally:
        os.close(file)
    return times
