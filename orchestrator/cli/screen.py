"""The lowest lines of a terminal, drawn again in place. Pure: gives the characters to write."""

from __future__ import annotations

from collections.abc import Sequence

CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"
# Terminals that know these show a frame at once; others ignore them.
BEGIN_FRAME, END_FRAME = "\x1b[?2026h", "\x1b[?2026l"


class Screen:
    """Knows how many lines it drew last. Each of them has to fit into the terminal's width."""

    def __init__(self) -> None:
        self._lines = 0

    @property
    def drawn(self) -> bool:
        """Whether there are lines that the next frame replaces."""
        return self._lines > 0

    def frame(self, scrolled: Sequence[str], fixed: Sequence[str]) -> str:
        """Write `scrolled` above, where it stays, and `fixed` below it, in place of the last."""
        up = f"\x1b[{self._lines}A" if self._lines else ""
        # A line that wraps would leave the rest of its last row.
        above = "".join(f"{CLEAR_BELOW}{line}\n" for line in scrolled)
        below = "".join(f"{line}{CLEAR_LINE}\n" for line in fixed)
        self._lines = len(fixed)
        return f"{BEGIN_FRAME}\r{up}{above}{below}{CLEAR_BELOW}{END_FRAME}"
