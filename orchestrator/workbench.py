"""What the jobs of one process share."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.incus import Incus
from orchestrator.intents import IntentSwitch
from orchestrator.journal import Journal
from orchestrator.plan import Host
from orchestrator.settings import StateRoot


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


def ignore_log(job: str, chunk: bytes) -> None:
    """The listener of a process that shows no logs."""


@dataclass(frozen=True)
class Workbench:
    """The daemon, the journal and the directories; who listens; and how jobs are treated.

    `on_log` gets a job's id and each piece of its log. `keep_secs` is how long the guest of a
    job that did not pass is kept for debugging, None for not at all. `intent` is what this process
    wants of all its jobs.
    """

    root: StateRoot
    journal: Journal
    incus: Incus
    host: Host = field(default_factory=Host)
    keep_secs: float | None = None
    on_log: Callable[[str, bytes], None] = ignore_log
    intent: IntentSwitch = field(default_factory=IntentSwitch)
