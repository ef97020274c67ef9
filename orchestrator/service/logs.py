"""The service's log: one line per decision, as text or as JSON.

Modules use `logging`, and pass fields in `extra={"about": {...}}`. Lines are written in a thread:
while nobody reads them, nothing else waits.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Thread
from typing import Any, TextIO

from orchestrator.terminal import plain

# For each kind of line, so that a flood of clients cannot fill the disk.
MOST_A_MINUTE = 60
# Lines that wait to be written; further ones are counted.
MOST_WAITING = 10_000
# For the lines that wait at the end.
LAST_LINES_SECS = 2.0
_PACKAGE = "orchestrator"


# The levels of sd-daemon(3); 6 is that of all other lines.
_PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4}


def goes_to_journal(out: TextIO) -> bool:
    """Whether a stream is that of systemd's journal.

    The variable alone does not say so: a shell that systemd started has it, too.
    """
    try:
        found = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


@contextmanager
def logging_to(
    write: Callable[[bytes], None],
    *,
    as_json: bool,
    to_journal: bool = False,
    on_broken: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """While the block runs, this package's log, from level INFO, goes to `write`, in a thread.

    Lines for systemd's journal begin with their priority, which it takes off and files them by. If
    `write` raises, `on_broken` is called: a service does not stop because it cannot log.
    """
    lines = _Lines(write, on_broken, to_journal=to_journal)
    lines.setFormatter(JsonLines() if as_json else TextLines())
    lines.addFilter(Flood())
    package = logging.getLogger(_PACKAGE)
    before = package.handlers, package.level, package.propagate
    package.handlers, package.propagate = [lines], False
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.handlers, level, package.propagate = before
        package.setLevel(level)
        lines.end()


class _Lines(logging.Handler):
    def __init__(
        self, write: Callable[[bytes], None], on_broken: Callable[[], None], *, to_journal: bool
    ) -> None:
        super().__init__()
        self._write = write
        self._on_broken = on_broken
        self._to_journal = to_journal
        self._waiting: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._lost = 0
        # It may hang in `write` for ever, and does not keep the process alive then.
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return f"<{_PRIORITY.get(record.levelno, 6)}>{line}" if self._to_journal else line

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost:
            record.about = {**_about(record), "lost_before": self._lost}
        try:
            self._waiting.put_nowait(self.format(record))
            self._lost = 0
        except queue.Full:
            self._lost += 1

    def end(self) -> None:
        """Return when all lines are written, or after `LAST_LINES_SECS`."""
        until = time.monotonic() + LAST_LINES_SECS
        with suppress(queue.Full):
            self._waiting.put(None, timeout=LAST_LINES_SECS)
        self._thread.join(max(0.0, until - time.monotonic()))

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._write(f"{line}\n".encode(errors="backslashreplace"))
            except Exception:
                self._on_broken()


class TextLines(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO submitted a run run=... jobs=3`"""

    def format(self, record: logging.LogRecord) -> str:
        about = "".join(f" {key}={_quote(value)}" for key, value in _about(record).items())
        line = f"{_time(record)} {record.levelname} {plain(record.getMessage())}{about}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        own = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        document = {**own, **_about(record), **own}  # in this order; no field takes their place
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


class Flood:
    """A filter that passes `MOST_A_MINUTE` lines of one kind per minute, and counts the others.

    Lines of one kind come from the same line of code. Errors, and lines about jobs, always pass.
    """

    def __init__(self) -> None:
        self._minutes: dict[str, tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR or "job" in _about(record):
            return True
        kind = f"{record.pathname}:{record.lineno}"
        minute = int(time.monotonic() // 60)
        then, count = self._minutes.get(kind, (minute, 0))
        if then != minute:
            if count > MOST_A_MINUTE:
                record.about = {**_about(record), "left_out_before": count - MOST_A_MINUTE}
            count = 0
        self._minutes[kind] = (minute, count + 1)
        return count < MOST_A_MINUTE


def _about(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = getattr(record, "about", {})
    return found


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _quote(value: Any) -> str:
    text = str(value)
    return text if text and text.isalnum() else json.dumps(text, ensure_ascii=True)
