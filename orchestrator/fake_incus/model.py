"""The daemon's state: projects with their instances, images and profiles; pools.

Plain structs, so that the fake program can keep them as JSON between commands.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from orchestrator.fake_incus import words
from orchestrator.fake_incus.words import Refused

FINGERPRINT = "fa4e" * 16  # of the image of a furnished store
STATUS_CODES = {"Running": 103, "Stopped": 102, "Ready": 113}
READY_KEY = "volatile.last_state.ready"

Device = dict[str, str]
_T = TypeVar("_T")


class Image(msgspec.Struct):
    """An image in a project. `type` is "container" or "virtual-machine".

    `files` are those that instances from it have at first.
    """

    fingerprint: str
    aliases: list[str] = []
    properties: dict[str, str] = {}
    type: str = "container"
    size: int = 0
    uploaded_at: str = "2026-01-01T00:00:00Z"
    files: dict[str, bytes] = {}


class Instance(msgspec.Struct):
    """An instance and its file system: `{absolute path: content}`, regular files only."""

    name: str
    project: str
    image: str
    type: str = "container"
    description: str = ""
    config: dict[str, str] = {}
    devices: dict[str, Device] = {}
    profiles: list[str] = []
    created_at: str = ""
    status: str = "Stopped"
    ephemeral: bool = False
    files: dict[str, bytes] = {}

    @property
    def shown_status(self) -> str:
        """The status; a running instance whose guest announced itself is Ready."""
        ready = self.status == "Running" and self.config.get(READY_KEY) == "true"
        return "Ready" if ready else self.status


class Profile(msgspec.Struct):
    """A profile: config and devices that instances share."""

    description: str = ""
    config: dict[str, str] = {}
    devices: dict[str, Device] = {}


class Project(msgspec.Struct):
    """A project; without `features.images` or `features.profiles` it uses the default project's."""

    config: dict[str, str] = {}
    instances: dict[str, Instance] = {}
    images: dict[str, Image] = {}
    profiles: dict[str, Profile] = {}


class Pool(msgspec.Struct):
    """A storage pool; its used space is fixed, whatever instances there are."""

    driver: str
    config: dict[str, str] = {}
    total_bytes: int = 30 << 30
    used_bytes: int = 1 << 30


class Machine(msgspec.Struct):
    """The host, as it says; instances use nothing of it. `driver` is what it can run."""

    cpus: int = 64
    memory_bytes: int = 256 << 30
    clustered: bool = False
    driver: str = "lxc | qemu"


def _default_project() -> dict[str, Project]:
    config = {"features.images": "true", "features.profiles": "true"}
    return {"default": Project(config=config, profiles={"default": Profile()})}


class Store(msgspec.Struct):
    """The whole state; by default that of a new daemon: an empty project and profile."""

    projects: dict[str, Project] = msgspec.field(default_factory=_default_project)
    pools: dict[str, Pool] = {}
    machine: Machine = msgspec.field(default_factory=Machine)
    networks: list[str] = []

    def project(self, name: str) -> Project:
        """A project; `Refused` if it does not exist."""
        return _found(self.projects, name, words.PROJECT_NOT_FOUND)

    def pool(self, name: str) -> Pool:
        """A pool; `Refused` if it does not exist."""
        return _found(self.pools, name, words.POOL_NOT_FOUND)

    def instance(self, project: str, name: str) -> Instance:
        """An instance; `Refused` if it or its project does not exist."""
        return _found(
            self.project(project).instances, name, words.instance_not_found(name, project)
        )

    def images(self, project: str) -> dict[str, Image]:
        """The images that a project sees: `{fingerprint: image}`."""
        return self._with_feature(project, "features.images").images

    def profiles(self, project: str) -> dict[str, Profile]:
        """The profiles that a project sees."""
        return self._with_feature(project, "features.profiles").profiles

    def image(self, project: str, name: str) -> Image:
        """The image with an alias, a fingerprint, or a prefix of one."""
        images = self.images(project) if project in self.projects else {}
        for image in images.values():
            if name in image.aliases or (name and image.fingerprint.startswith(name)):
                return image
        raise Refused(words.image_not_found(name))

    def expanded(self, instance: Instance) -> tuple[dict[str, str], dict[str, Device]]:
        """The instance's config and devices, on top of those of its profiles."""
        config: dict[str, str] = {}
        devices: dict[str, Device] = {}
        for name in instance.profiles:
            profile = self.profiles(instance.project)[name]
            config |= profile.config
            devices |= profile.devices
        return config | instance.config, devices | instance.devices

    def _with_feature(self, project: str, feature: str) -> Project:
        own = self.project(project)
        return own if own.config.get(feature) == "true" else self.projects["default"]


def _found(known: dict[str, _T], name: str, otherwise: str) -> _T:
    if name not in known:
        raise Refused(otherwise)
    return known[name]


def furnished() -> Store:
    """The state of a daemon after `pikaci setup` and `pikaci image build`."""
    store = Store()
    root = {"type": "disk", "path": "/", "pool": "pikaci"}
    store.pools["pikaci"] = Pool("btrfs")
    store.projects["pikaci"] = Project(
        config={"features.images": "true", "features.profiles": "true"},
        profiles={"default": Profile(), "pikaci": Profile(devices={"root": root})},
        images={
            FINGERPRINT: Image(
                fingerprint=FINGERPRINT,
                aliases=["pikaci/dev"],
                properties={
                    "pikaci.contract": "1",
                    "pikaci.contract.minor": "4",
                    "os": "Debian",
                },
            )
        },
    )
    return store
