"""Garbage collection of images that jobs left: those whose output is gone, or was never recorded.

It needs a daemon, unlike the rest of garbage collection, and is only needed in a state root where
`OutputStore.has_images`.
"""

from __future__ import annotations

from orchestrator.image.derived import delete_unneeded, unneeded_images
from orchestrator.image.origin import Origin
from orchestrator.image.store import Image
from orchestrator.image.trial import sweep_trials
from orchestrator.incus import Incus
from orchestrator.journal.reader import JournalReader
from orchestrator.outputs.store import OutputStore
from orchestrator.state_root import StateRoot


async def collect_images(
    incus: Incus, root: StateRoot, journal: JournalReader, *, dry_run: bool
) -> list[Image]:
    """Delete the images of this state root that no output has; returns them.

    Also guests of killed processes in which images were tried. Call it after the outputs were
    collected. The image of a job that has not ended may be one that is about to become an output,
    and is kept. Raises an `IncusError`, when images are left.
    """
    store = OutputStore(root.outputs)

    def is_needed(origin: Origin, fingerprint: str) -> bool:
        # In this order: a job records its output before its end.
        if any(row.id == origin.job for row in journal.unfinished()):
            return True
        record = store.made_by(origin.key, origin.job)
        return record is not None and record.fingerprint == fingerprint

    if not dry_run:
        await sweep_trials(incus)
    collect = unneeded_images if dry_run else delete_unneeded
    return await collect(incus, journal.owner, is_needed)
