"""Time stamps for entries of the journal."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def now() -> dict[str, Any]:
    """The two times of an entry: `at` for display, `monotonic` for measuring."""
    return {"at": datetime.now(UTC), "monotonic": time.monotonic()}


@functools.cache
def boot_id() -> str:
    """The id of the host's boot, from which `time.monotonic` counts: 8 hex digits, or ""."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return ""
