"""How far a publisher is. It counts in a thread; anybody may look."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """What is being done (`listing`, `reading`, `copying`, `packing`) to how many files.

    `files` of `total` are done, and had `size` bytes. While files are listed, all are 0; while
    git's history is packed, `size` is that of the packs so far.
    """

    doing: str = "listing"
    files: int = 0
    total: int = 0
    size: int = 0

    def begin(self, doing: str, total: int) -> None:
        self.doing, self.files, self.total, self.size = doing, 0, total, 0

    def count(self, size: int) -> None:
        """One more file is done."""
        self.files += 1
        self.size += size
