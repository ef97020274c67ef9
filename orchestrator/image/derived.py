"""Images that jobs leave for other jobs: published from the guest of a job that passed.

Every part may be done again: a process that dies in between leaves a guest or an image, and the
next one continues from what it finds. An image is known by its properties, so nothing has to be
written down in between. Garbage collection deletes those that no output needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.boot import NotReady, boot, start_again
from orchestrator.attempt.clean import parse_size
from orchestrator.attempt.plan import Plan
from orchestrator.contract import contract
from orchestrator.image.origin import Origin
from orchestrator.image.smoke import BadImage, smoke_test
from orchestrator.image.store import Image, delete_image, list_images
from orchestrator.incus import Completed, Deadline, Incus
from orchestrator.incus.errors import (
    AlreadyDone,
    DeadlinePassed,
    ImageNotFound,
    InstanceBusy,
    InstanceRunning,
)
from orchestrator.incus.instances import instance_status
from orchestrator.incus.retries import limit, retrying
from orchestrator.units import size

MAX_NAMES = 1_000_000
# So much more than the guest's files an image may have: the headers of its archive.
HEADER_BYTES = 2048
CLEAN_TRIES = 3
CLEAN_AGAIN_SECS = 1.0
PUBLISH_TRIES = 3


class _Guest(msgspec.Struct):
    status: str
    config: dict[str, str]


async def make_image(incus: Incus, plan: Plan, origin: Origin, *, minor: int) -> Image:
    """Make an image of the plan's guest, whose job has passed, and try it.

    `minor` is the contract's minor version that the guest keeps. An image with this origin that is
    there is not made again. Waits for a daemon that is down. Raises `BadImage`, when no image is
    left, and an `IncusError`.
    """

    async def once() -> Image:
        with limit(
            "making an image of the guest", plan.deadlines.publish_secs, setting="publish_secs"
        ):
            images = await list_images(incus)
            most = _most_bytes(plan, images)
            if (image := _find(images, origin)) is None:
                await _publish(incus, plan, origin, minor, most)
                image = _find(await list_images(incus), origin)
            if image is None:
                raise ImageNotFound("the image that was just published is not there")
            try:
                _check_size(most + MAX_NAMES * HEADER_BYTES, image.size)
                await smoke_test(incus, plan, image)
            except BadImage:
                await delete_image(incus, image.fingerprint)
                raise
            return image
        raise AssertionError("unreachable")

    return await retrying(once, on=commands.EXEC_AWAY_OR_UNKNOWN, secs=plan.deadlines.daemon_secs)


def _find(images: Sequence[Image], origin: Origin) -> Image | None:
    """The first image with this origin; a process that died may have left another."""
    found = [image for image in images if image.origin == origin]
    return min(found, key=lambda image: (image.uploaded_at, image.fingerprint), default=None)


def _most_bytes(plan: Plan, images: Sequence[Image]) -> int:
    """The bytes that the guest may have: its disk, and the image that it was made from.

    Some storage drivers count the image as part of the disk.
    """
    made_from = (image.size for image in images if image.fingerprint == plan.fingerprint)
    return plan.output_bytes + next(made_from, 0)


async def _publish(incus: Incus, plan: Plan, origin: Origin, minor: int, most_bytes: int) -> None:
    path = f"/1.0/instances/{quote(plan.instance)}"
    found = await incus.query(path, _Guest, deadline=Deadline(commands.STATUS_SECS))
    # For a process that died after this, Incus may still be making an image: it must not start.
    clean = found.status == "Stopped" and commands.CLEAN in found.config
    ours = contract()
    properties = {
        "description": f"output of {origin.name}",
        ours.image_property: str(ours.version),
        ours.minor_property: str(minor),
        **origin.properties,
    }
    for tries_left in reversed(range(PUBLISH_TRIES)):
        if not clean:
            _check_size(most_bytes, *await _clean(incus, plan))
            await incus.perform(commands.mark_clean(plan))
        with suppress(AlreadyDone):
            await incus.perform(commands.stop(plan))
        try:
            await incus.perform(commands.publish_image(plan, properties))
            return
        except InstanceRunning:
            # Incus started it late, for a process that died: what has booted is no longer new.
            if not tries_left:
                raise
            clean = False


async def _clean(incus: Incus, plan: Plan) -> tuple[int, int]:
    """Make the guest new, which is started if it has stopped; returns its bytes and names."""
    problem = ""
    for tries_left in reversed(range(CLEAN_TRIES)):
        try:
            await _start_again(incus, plan)
            cleaned = await _clean_once(incus, plan)
        except InstanceBusy:
            if not tries_left:
                raise
        else:
            printed = parse_size(cleaned.stdout)
            if printed is not None and cleaned.exit_code == 0:
                return printed
            problem = cleaned.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        if tries_left:
            # An exec also fails in a guest that is being stopped, for a process that died since.
            await trio.sleep(CLEAN_AGAIN_SECS)
    raise BadImage(
        f"its guest cannot be cleaned: {problem or 'the script failed'}",
        resolution="the command must leave working tools, and some room on the disk",
    )


async def _clean_once(incus: Incus, plan: Plan) -> Completed:
    try:
        return await incus.perform(commands.clean(plan))
    except DeadlinePassed as late:
        raise BadImage(
            f"its guest cannot be cleaned: {late.brief}",
            resolution="very many files take long to delete and to count",
        ) from None


async def _start_again(incus: Incus, plan: Plan) -> None:
    """Start the guest if it has stopped, for a process that died, or when the host was rebooted."""
    status = await instance_status(incus, plan.instance, deadline=Deadline(commands.STATUS_SECS))
    if status == "Running":
        return
    try:
        await start_again(incus, plan)
        await boot(incus, plan)
    except NotReady as error:
        raise BadImage(f"its guest does not start again: {error.brief}") from None


def _check_size(most: int, bytes: int, names: int = 0) -> None:
    """Raise `BadImage` if the guest's files are too many, or too large with their holes."""
    if bytes > most:
        raise BadImage(
            f"its guest has {size(bytes)}, counting the holes of sparse files;"
            f" the limit is {size(most)}",
            resolution="delete what other jobs do not need, or give the job a larger `disk`",
        )
    if names > MAX_NAMES:
        raise BadImage(
            f"its guest has {names} files, an image has at most {MAX_NAMES}",
            resolution="delete what other jobs do not need",
        )


async def images_of(incus: Incus, owner: str) -> list[Image]:
    """The images that jobs of this owner left. Raises an `IncusError`."""
    return [
        image
        for image in await list_images(incus)
        if image.origin is not None and image.origin.owner == owner
    ]


async def delete_images(incus: Incus, images: Sequence[Image]) -> None:
    """Delete images; another process may do so at the same time. Raises an `IncusError`."""
    for image in images:
        with suppress(ImageNotFound):
            await delete_image(incus, image.fingerprint)
