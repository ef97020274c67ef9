"""Times and sizes as a person says them."""

from __future__ import annotations

from datetime import datetime


def duration(secs: float) -> str:
    """So long, to the precision that one cares for: `0.04 s`, `4.2 s`, `42 s`, `4 min 2 s`."""
    if secs < 9.95:
        return f"{max(0.0, secs):.2f} s" if secs < 0.995 else f"{secs:.1f} s"
    whole = round(secs)
    if whole < 60:
        return f"{whole} s"
    minutes, seconds = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(round(secs / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(secs / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def age(at: datetime, now: datetime) -> str:
    """How long ago. `live.js` says the same as time passes."""
    secs = (now - at).total_seconds()
    if secs < 5:
        return "just now"
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h")):
        if secs < limit:
            return f"{int(secs / unit)} {name} ago"
    return f"{int(secs / 86_400)} days ago"


def size(count: int) -> str:
    """Bytes, in the unit that makes a small number of them."""
    if count < 1000:
        return f"{count} B"
    shown, units = count / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while shown >= 1000 and len(units) > 1:
        shown, units = shown / 1024, units[1:]
    return f"{shown:.1f} {units[0]}" if shown < 100 else f"{shown:.0f} {units[0]}"
