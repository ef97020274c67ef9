"""Images in Incus: finding, listing and replacing them."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec
import trio

from orchestrator.attempt.effects import needs_directory
from orchestrator.contract import contract, how_to_rebuild
from orchestrator.image.origin import Origin, origin_of
from orchestrator.incus import Deadline, Effect, Incus, request
from orchestrator.incus.errors import IncusError, ProjectNotFound
from states.errors import PikaciError
from states.events import ImageRef
from states.mistakes import did_you_mean
from states.spec import InstanceType, JobSpec

LOOK_UP_SECS = 30.0
IMPORT_SECS = 600.0
KNOWN_SECS = 10.0
WARNED_RUNS = 1000
# What guests lack whose image keeps only the minor version before this one. A job that asks for
# something newer is refused instead.
_CAME_WITH = {
    1: "localhost may not resolve, and a job that fills /dev/shm may lose its verdict",
}
_DIRECTORIES_SINCE = _GIT_SINCE = 2


class ImageMissing(PikaciError):
    """No image in the project has this alias or fingerprint."""


class WrongContract(PikaciError):
    """The image is for another version of the guest contract, or for none."""


class ImageTooOld(PikaciError):
    """The image is of an older minor version, which lacks what a `key` of the job file needs."""

    def __init__(self, key: str, brief: str, *, resolution: str) -> None:
        super().__init__(brief, resolution=resolution)
        self.key = key


class WrongType(PikaciError):
    """The image is for containers and the job for a virtual machine, or the other way round."""


class _Alias(msgspec.Struct):
    name: str


class Image(msgspec.Struct):
    """An image in Incus; `size` in bytes."""

    fingerprint: str
    aliases: list[_Alias]
    properties: dict[str, str]
    size: int
    uploaded_at: datetime
    type: str = "container"

    @property
    def contract(self) -> str | None:
        """The contract version that the image claims to keep."""
        return self.properties.get(contract().image_property)

    @property
    def minor(self) -> int:
        """The minor version that it claims to keep; 0 if it claims none."""
        claimed = self.properties.get(contract().minor_property, "")
        return int(claimed) if re.fullmatch("[0-9]{1,6}", claimed) else 0

    def has_alias(self, alias: str) -> bool:
        """Whether this is one of the image's aliases."""
        return any(known.name == alias for known in self.aliases)

    def is_called(self, name: str) -> bool:
        """Whether this is one of its aliases, or begins its fingerprint with 12 or more digits."""
        return self.has_alias(name) or (len(name) >= 12 and self.fingerprint.startswith(name))

    @property
    def origin(self) -> Origin | None:
        """The job whose output it is; None for any other image."""
        return origin_of(self.properties)


async def list_images(incus: Incus) -> list[Image]:
    """All images of the project, in one call."""
    return await incus.query(
        "/1.0/images?recursion=1", list[Image], deadline=Deadline(LOOK_UP_SECS)
    )


async def find_image(
    incus: Incus, alias: str, instance_type: InstanceType = InstanceType.CONTAINER
) -> ImageRef:
    """The image with this alias (or fingerprint), which must have our contract version.

    Raises `ImageMissing`, `WrongContract` or `WrongType`, each with a command that helps.
    """
    try:
        images = await list_images(incus)
    except ProjectNotFound as error:
        raise ImageMissing(
            f"there is no image {alias}: there is no {_where(incus)}", resolution=error.resolution
        ) from None
    return choose_image(incus, images, alias, instance_type)


def choose_image(
    incus: Incus, images: Sequence[Image], alias: str, instance_type: InstanceType
) -> ImageRef:
    """Return or raise what `find_image` does, for `images` that were listed before."""
    found = [image for image in images if image.is_called(alias)]
    if not found:
        aliases = sorted({known.name for image in images for known in image.aliases})
        raise ImageMissing(
            f"there is no image {alias} in {_where(incus)}{did_you_mean(alias, aliases)}",
            resolution="`pikaci image list` shows all; `pikaci image build` builds pikaci/dev, with"
            " --vm pikaci/vm;"
            f" others: `incus image import FILE {incus.remote}: --alias {alias}"
            f" --project {incus.project}`",
        )
    ours, theirs = str(contract().version), found[0].contract
    if theirs != ours:
        raise WrongContract(
            f"the image {alias} in {_where(incus)} has guest contract {theirs or 'none'};"
            f" this pikaci needs version {ours}",
            resolution="`pikaci image build` rebuilds pikaci/dev;"
            f" `pikaci image check {alias}` says what is missing in an image",
        )
    if found[0].type != instance_type:
        raise WrongType(
            f"the image {alias} in {_where(incus)} is of type {found[0].type};"
            f" the job's instance_type is {instance_type}",
            resolution=f'set instance_type = "{found[0].type}" in the job, or name another image:'
            " `pikaci image list` shows the types",
        )
    return ImageRef(alias=alias, fingerprint=found[0].fingerprint, minor=found[0].minor)


def _where(incus: Incus) -> str:
    return f"project {incus.project} of {incus.remote}"


def check_age(image: ImageRef, spec: JobSpec, *, git: bool = False) -> None:
    """Raise `ImageTooOld` for what the job needs, and guests of an older minor version lack.

    `git`: the job's snapshot has a `.git`.
    """
    ours = contract()
    wanted = [
        ("egress", "`egress`", ours.egress.since, bool(spec.egress)),
        ("output", f"`output = {spec.output!r}`", _DIRECTORIES_SINCE, needs_directory(spec.output)),
        ("snapshot.git", "`git = true`", _GIT_SINCE, git and spec.sources is None),
    ]
    for key, what, since, used in wanted:
        if used and image.minor < since:
            raise ImageTooOld(
                key,
                f"the image {image.alias} keeps guest contract {ours.version}.{image.minor}, and"
                f" {what} needs {ours.version}.{since}",
                resolution=how_to_rebuild(image.alias),
            )


class Images:
    """A cache of image look-ups, for jobs that start at about the same time.

    Entries expire soon, because an alias may move to a newer image, and the older one is then
    deleted.
    """

    def __init__(self, incus: Incus) -> None:
        self.incus = incus
        self._found: dict[tuple[str, InstanceType], tuple[ImageRef, float]] = {}
        self._lock = trio.Lock()
        self._warned: deque[tuple[str, str]] = deque(maxlen=WARNED_RUNS)

    async def find(self, alias: str, instance_type: InstanceType) -> ImageRef:
        """Return or raise what `find_image` does."""
        async with self._lock:
            image, until = self._found.get((alias, instance_type), (None, 0.0))
            if image is None or trio.current_time() >= until:
                image = await find_image(self.incus, alias, instance_type)
                self._found[alias, instance_type] = image, trio.current_time() + KNOWN_SECS
            return image

    def lacks(self, image: ImageRef, run: str) -> str:
        """What an image of an older minor version lacks: a warning, empty after the run's first."""
        lacking = "; ".join(what for minor, what in _CAME_WITH.items() if minor > image.minor)
        if not lacking or (run, image.fingerprint) in self._warned:
            return ""
        self._warned.append((run, image.fingerprint))
        return (
            f"the image {image.alias} keeps guest contract {contract().version}.{image.minor}, not"
            f" {contract().name}: in its guests {lacking}; {how_to_rebuild(image.alias)}"
        )


class NotAnImage(PikaciError):
    """Incus does not accept these files as an image."""


def keeps_contract(image: Image) -> None:
    """Raise `WrongContract` if an imported image does not claim our contract version."""
    ours = contract()
    if image.contract != str(ours.version):
        raise WrongContract(
            f"the image has guest contract {image.contract or 'none'};"
            f" this pikaci needs version {ours.version}",
            resolution=f"set the property {ours.image_property} in the image's metadata.yaml;"
            " docs/guest-contract.md says what the image promises with it",
        )


async def import_image(
    incus: Incus,
    files: Sequence[Path],
    alias: str,
    *,
    look: Callable[[Image], None] = keeps_contract,
) -> str:
    """Import an image, as one file or as metadata and root disk, and give it the alias.

    Returns the fingerprint. If `look` raises, the image is deleted again. The alias always names an
    image: it is moved in one step, and only then the previous image is deleted, unless it has
    another alias. Raises `NotAnImage`, what `look` raises, or an `IncusError`.
    """
    before = await list_images(incus)
    fingerprint = await trio.to_thread.run_sync(_digest, files)
    known = any(image.fingerprint == fingerprint for image in before)
    if not known:
        await _upload(incus, files)
    images = await list_images(incus)
    try:
        look(next(image for image in images if image.fingerprint == fingerprint))
    except PikaciError:
        if not known:
            await delete_image(incus, fingerprint)
        raise
    old = next((image for image in images if image.has_alias(alias)), None)
    aliases = "/1.0/images/aliases"
    target = {"target": fingerprint, "description": ""}
    if old is None:
        await _send(incus, "POST", aliases, {**target, "name": alias})
    elif old.fingerprint != fingerprint:
        # Not with the client's --alias, which deletes the alias and then creates it again.
        await _send(incus, "PUT", f"{aliases}/{quote(alias, safe='')}", target)
        if len(old.aliases) == 1 and old.origin is None:
            await delete_image(incus, old.fingerprint)
    return fingerprint


async def _upload(incus: Incus, files: Sequence[Path]) -> None:
    # The client would read a name with `=` as a property, and one with `:` as a remote.
    with tempfile.TemporaryDirectory(prefix="pikaci-import-") as directory:
        links = [Path(directory, name) for name in ("image", "rootfs")[: len(files)]]
        for link, file in zip(links, files, strict=True):
            link.symlink_to(file.absolute())
        names = map(str, links)
        effect = Effect(
            name="image import",
            args=("image", "import", "--quiet", *names, f"{incus.remote}:"),
            deadline=Deadline(IMPORT_SECS),
        )
        try:
            await incus.perform(effect)
        except IncusError as error:
            if type(error) is not IncusError:  # a more specific error explains itself
                raise
            raise NotAnImage(
                f"{' and '.join(map(str, files))}: not an image that Incus accepts"
                f" ({error.brief.partition(' failed: ')[2]})",
                details=error.details,
                resolution="one file with metadata.yaml and rootfs, or metadata and root disk",
            ) from None


async def delete_image(incus: Incus, fingerprint: str) -> None:
    """Delete an image. Instances made from it stay as they are."""
    await incus.perform(
        Effect(
            name="image delete",
            args=("image", "delete", "--quiet", incus.name(fingerprint)),
            deadline=Deadline(IMPORT_SECS),
        )
    )


async def _send(incus: Incus, method: str, path: str, body: dict[str, str]) -> None:
    deadline = Deadline(LOOK_UP_SECS)
    await incus.perform(request(incus.path(path), method=method, body=body, deadline=deadline))


def _digest(files: Sequence[Path]) -> str:
    # Incus's fingerprint: the hash of all files, concatenated.
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            while chunk := data.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
