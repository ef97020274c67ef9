"""The images of one run: each alias is looked up once, however many jobs use it."""

from __future__ import annotations

import trio

from orchestrator.image.store import find_image
from orchestrator.incus import Incus
from states.events import ImageRef


class Images:
    """Answers from memory what the daemon was asked before."""

    def __init__(self, incus: Incus) -> None:
        self._incus = incus
        self._found: dict[str, ImageRef] = {}
        self._lock = trio.Lock()

    async def find(self, alias: str) -> ImageRef:
        """The image of this alias, of our contract's version; raises what `find_image` raises."""
        async with self._lock:
            if alias not in self._found:
                self._found[alias] = await find_image(self._incus, alias)
            return self._found[alias]
