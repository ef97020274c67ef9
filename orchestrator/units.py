"""Formats sizes and times for people. `times.js` formats times the same way on the page.

Values are rounded to the nearest last digit, and a larger value never looks smaller. A deadline or
limit from a setting is shown in that setting's unit.
"""

from __future__ import annotations

import math

_SIZES = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_AGES = ((172_800, 86_400, "d"), (3600, 3600, "h"), (60, 60, "min"), (5, 1, "s"))
NOW = "now"


def duration(secs: float) -> str:
    """A duration, in two units at most: `40 ms`, `4.2 s`, `42 s`, `4 min 2 s`, `2 d 8 h`."""
    secs = max(0.0, secs)
    if (milliseconds := _nearest(secs * 1000)) < 1000:
        return f"{milliseconds} ms"
    if (tenths := _nearest(secs * 10)) < 100:
        return f"{tenths // 10}.{tenths % 10} s"
    if (whole := _nearest(secs)) < 60:
        return f"{whole} s"
    if whole < 3600:
        return _pair(*divmod(whole, 60), "min", "s")
    if (minutes := _nearest(secs / 60)) < 48 * 60:
        return _pair(*divmod(minutes, 60), "h", "min")
    return _pair(*divmod(_nearest(secs / 3600), 24), "d", "h")


def seconds(secs: float, *, signed: bool = False) -> str:
    """For a column of times: milliseconds, with aligned decimal points."""
    return f"{secs:{'+' if signed else ''}9.3f} s"


def age(secs: float) -> str:
    """An age, in the largest full unit: `now`, `59 s`, `12 min`, `47 h`, `3 d`."""
    for least, unit, name in _AGES:
        if secs >= least:
            return f"{int(secs // unit)} {name}"
    return NOW


def size(count: int) -> str:
    """A size, in the largest unit, with one decimal: `8 GiB`, `1.5 GiB`, `512 B`."""
    if count < 1024:
        return f"{count} B"
    for power, unit in enumerate(_SIZES, start=1):  # noqa: B007
        # Integer arithmetic, so that every size is exact.
        tenths = (count * 10 + (1 << 10 * power - 1)) >> 10 * power
        if tenths < 10240:
            break
    whole, tenth = divmod(tenths, 10)
    return f"{whole}.{tenth} {unit}" if tenth else f"{whole} {unit}"


def counted(number: int, what: str) -> str:
    """So many of something: `1 run`, `2 runs`. Only for words whose plural is formed with an s."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _nearest(value: float) -> int:
    """Round as JavaScript does: halves go up."""
    return math.floor(value + 0.5)


def _pair(many: int, few: int, unit: str, part: str) -> str:
    return f"{many} {unit} {few} {part}" if few else f"{many} {unit}"
