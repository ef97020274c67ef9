"""Garbage collection of images that jobs left: those whose output is gone, or was never recorded.

It needs a daemon, unlike the rest of garbage collection, and is only needed in a state root where
`OutputStore` notes that images may be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import partial

import trio

from orchestrator.hosts import Hosts
from orchestrator.image.derived import delete_images, images_of
from orchestrator.image.store import Image
from orchestrator.incus import Incus
from orchestrator.journal.reader import JournalReader
from orchestrator.outputs.store import OutputStore, directory_name
from orchestrator.session import locks
from orchestrator.state_root import StateRoot
from states.errors import PikaciError


async def collect_images_on(
    hosts: Hosts,
    names: Iterable[str],
    root: StateRoot,
    journal: JournalReader,
    *,
    dry_run: bool,
    without: Collection[str] = (),
) -> tuple[list[Image], list[str]]:
    """`collect_images` on the hosts with these names; returns also why images are left."""
    gone: list[Image] = []
    problems: list[str] = []
    collect = partial(collect_images, dry_run=dry_run, without=without)
    for name in names:
        try:
            gone += await collect(hosts.at(name).incus, root, journal, host=name)
        except PikaciError as error:
            problems.append(f"images that jobs left were not deleted: {error.brief}")
    return gone, problems


async def collect_images(
    incus: Incus,
    root: StateRoot,
    journal: JournalReader,
    *,
    dry_run: bool,
    without: Collection[str] = (),
    host: str = "",
) -> list[Image]:
    """Delete the images of this state root on one host that no output has; returns them.

    `host` is its name, "" for the local one, and `incus` its Incus. Call it after the outputs were
    collected; `without` are the directories of those that are, or with `dry_run` would be, deleted.
    The image of a job that has not ended may be about to become an output, and is kept. A host that
    has no image left is not asked by the next garbage collection. Raises an `IncusError`, when
    images are left.
    """
    store = OutputStore(root.outputs)
    # Before the images are listed: one that is published later is not among them.
    noted = await trio.to_thread.run_sync(_noted_by_the_dead, store, journal)
    images = await images_of(incus, journal.owner)
    judge = partial(_unneeded, images, store, journal, without)
    gone = await trio.to_thread.run_sync(judge)
    if dry_run:
        return gone
    await delete_images(incus, gone)
    if len(gone) == len(images) and noted is not None:
        await trio.to_thread.run_sync(_forget, store, root, journal, noted, host)
    return gone


def _unneeded(
    images: Collection[Image], store: OutputStore, journal: JournalReader, without: Collection[str]
) -> list[Image]:
    # In this order: a job records its output before its end.
    unfinished = {row.id for row in journal.unfinished()}

    def is_needed(image: Image) -> bool:
        origin = image.origin
        assert origin is not None
        if origin.job in unfinished:
            return True
        if directory_name(origin.key, origin.job) in without:
            return False
        record = store.made_by(origin.key, origin.job)
        return record is not None and record.fingerprint == image.fingerprint

    return [image for image in images if not is_needed(image)]


def _noted_by_the_dead(store: OutputStore, journal: JournalReader) -> int | None:
    """When it was last noted that there may be images; None if a job may publish one by that."""
    noted = store.images_noted()
    return None if any(journal.unfinished()) else noted


def _forget(
    store: OutputStore, root: StateRoot, journal: JournalReader, noted: int, host: str
) -> None:
    """Note that there is no image on the host, unless a job may have made one since `noted`."""
    # Where there is no snapshot any more, somebody else deletes the state root.
    with suppress(FileNotFoundError), locks.no_submissions(root.snapshots) as alone:
        if alone and not any(journal.unfinished()) and store.images_noted() == noted:
            store.note_no_images(host)
