"""When something happened, as entries of the journal have it."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def now() -> dict[str, Any]:
    """The two times of an entry: `at` to show, `monotonic` to measure with."""
    return {"at": datetime.now(UTC), "monotonic": time.monotonic()}


@functools.cache
def boot_id() -> str:
    """Which boot of the host `time.monotonic` counts from: 8 hex digits, "" when not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return ""
