"""Checks that the images and networks which specs name exist, before anything is submitted.

And that images are not too old for what their jobs need of a guest, and that this host can go out
for jobs with `egress`. Images and networks can still be removed before a job begins: then the job
ends by an infrastructure fault. When Incus cannot tell what there is, nothing is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import msgspec

from orchestrator.egress.host_proxy import HostProxies
from orchestrator.image.store import (
    LOOK_UP_SECS,
    Image,
    ImageMissing,
    Images,
    ImageTooOld,
    WrongType,
    check_age,
    choose_image,
    list_images,
)
from orchestrator.incus import Deadline, Incus
from orchestrator.incus.errors import DaemonUnreachable, HostRefused, IncusMissing
from states.errors import PikaciError, SpecError
from states.events import ImageRef
from states.mistakes import did_you_mean, raise_all
from states.spec import InstanceType, JobSpec

NO_NETWORK = "none"
MOST_SHOWN = 8


class _Network(msgspec.Struct, frozen=True):
    name: str
    managed: bool = False


async def check_host_names(
    images: Images, specs: Mapping[str, JobSpec], *, git: bool = False
) -> None:
    """Raise `SpecError` for images and networks that do not exist, or not of the job's type.

    Also for images that are too old, and for a host that gives a job with `egress` no way out.
    `git`: the jobs' snapshot has a `.git`. One query for the images,
    and one for the networks if there are any. What was found is in `images` then. Raises
    `DaemonUnreachable`, `HostRefused` or `IncusMissing` when there is no Incus.
    """
    raise_all(
        [
            *await _wrong_images(images, specs, git),
            *await _wrong_networks(images.incus, specs),
            *_wrong_proxy(specs),
        ]
    )


async def _wrong_images(images: Images, specs: Mapping[str, JobSpec], git: bool) -> list[SpecError]:
    wanted: dict[tuple[str, InstanceType], list[str]] = {}
    for name, spec in specs.items():
        if isinstance(spec.image, str):  # else another job of the run makes it
            wanted.setdefault((spec.image, spec.instance_type), []).append(name)
    found: list[SpecError] = []
    listed: list[Image] | None = None  # once one is missing
    for (alias, instance_type), (job, *others) in wanted.items():
        try:
            if listed is None:
                image = await images.find(alias, instance_type)
            else:
                image = choose_image(images.incus, listed, alias, instance_type)
            found += _too_old(image, {name: specs[name] for name in (job, *others)}, git)
        except (DaemonUnreachable, HostRefused, IncusMissing):
            raise
        except (ImageMissing, WrongType) as error:
            try:
                listed = listed or await list_images(images.incus)
            except PikaciError:
                return []  # there is no project: the host has not been set up
            found.append(_wrong_image(error, job, listed))
        except PikaciError:
            pass  # the jobs that need the image report it
    return found


def _too_old(image: ImageRef, specs: Mapping[str, JobSpec], git: bool) -> Iterable[SpecError]:
    """What jobs need that the image is too old for: each once, with the first job that needs it."""
    found: dict[str, SpecError] = {}
    for job, spec in specs.items():
        try:
            check_age(image, spec, git=git)
        except ImageTooOld as error:
            wrong = SpecError(
                error.key, f"of the job {job}: {error.headline}", allowed=error.resolution
            )
            found.setdefault(error.key, wrong)
    return found.values()


def _wrong_image(error: PikaciError, job: str, listed: Iterable[Image]) -> SpecError:
    if isinstance(error, WrongType):
        return SpecError(
            "instance_type", f"of the job {job}: {error.headline}", allowed=error.resolution
        )
    there = sorted({alias.name for image in listed for alias in image.aliases})
    return SpecError(
        "image",
        f"of the job {job}: {error.headline}",
        allowed=f"the alias or fingerprint of an image ({_listed(there)}); `pikaci image build`"
        " makes pikaci/dev and, with --alias, images of your own",
    )


def _wrong_proxy(specs: Mapping[str, JobSpec]) -> list[SpecError]:
    job = next((name for name, spec in specs.items() if spec.egress), None)
    if job is None:
        return []
    try:
        HostProxies(os.environ)
    except PikaciError as error:
        return [
            SpecError("egress", f"of the job {job}: {error.headline}", allowed=error.resolution)
        ]
    return []


async def _wrong_networks(incus: Incus, specs: Mapping[str, JobSpec]) -> list[SpecError]:
    wanted: dict[str, str] = {}
    for name, spec in specs.items():
        if spec.network != NO_NETWORK:
            wanted.setdefault(spec.network, name)
    if not wanted:
        return []
    try:
        networks = await incus.query(
            "/1.0/networks?recursion=1", list[_Network], deadline=Deadline(LOOK_UP_SECS)
        )
    except (DaemonUnreachable, HostRefused, IncusMissing):
        raise
    except PikaciError:
        return []
    there = sorted(network.name for network in networks if network.managed)
    return [
        SpecError(
            "network",
            f"of the job {job}: there is no network {name} on {incus.remote}"
            f"{did_you_mean(name, there)}",
            allowed=f"{NO_NETWORK}, or a managed network of Incus ({_listed(there)})",
        )
        for name, job in wanted.items()
        if name not in there
    ]


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - MOST_SHOWN} more" if len(every) > MOST_SHOWN else ""
    return ", ".join(every[:MOST_SHOWN]) + more or "there is none"
