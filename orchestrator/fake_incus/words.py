"""Incus's error messages (Incus 6.0.4, Debian bookworm-backports).

The client prints `Error: ` and the message on stderr, and exits with code 1. The contract tests
compare the messages that pikaci relies on with a real daemon.
"""

from __future__ import annotations


class Refused(Exception):
    """The daemon or its client refuses; the message is the text after `Error: `."""


class NotFaked(NotImplementedError):
    """The real Incus may support this; the fake does not."""


DAEMON_DOWN = (
    "The incus daemon doesn't appear to be started (socket path: /var/lib/incus/unix.socket)"
)
CONNECTION_LOST = "websocket: close 1006 (abnormal closure): unexpected EOF"
NOT_PERMITTED = "You don't have the needed permissions to talk to the incus daemon"
QUERY_WITH_PROJECT = "--project cannot be used with the query command"
PROJECT_WITH_ALL = "Can't specify --project with --all-projects"

NOT_RUNNING = "Instance is not running"
AGENT_AWAY = "VM agent isn't currently running"
ALREADY_RUNNING = "The instance is already running"
ALREADY_STOPPED = "The instance is already stopped"
MUST_STOP_FIRST = "The instance is currently running, stop it first or pass --force"
MUST_STOP_TO_PUBLISH = (
    "The instance is currently running. Use --force to have it stopped and restarted"
)
BUSY_CREATING = 'Instance is busy running a "create" operation'
NO_FILE = "file does not exist"
NO_NETWORK_NOTE = (
    "\nThe instance you are starting doesn't have any network attached to it.\n"
    "  To create a new network, use: incus network create\n"
    "  To attach a network to an instance, use: incus network attach\n"
)

IMAGE_NOT_FOUND = "Image not found"
IMAGE_ALIAS_NOT_FOUND = "Image alias not found"
NO_ARCHIVE = "Unsupported compression"
NO_METADATA = "Metadata tarball is missing metadata.yaml"
SAME_FINGERPRINT = "Image with same fingerprint already exists"
PROJECT_NOT_FOUND = "Project not found"
PROJECT_NOT_EMPTY = "Only empty projects can be removed."
PROFILE_NOT_FOUND = "Profile not found"
POOL_NOT_FOUND = "Storage pool not found"
POOL_TAKEN = "The storage pool already exists: The record already exists"

# The client adds these for some exit codes of an exec, whatever caused them.
ON_EXIT_CODE = {126: "Command not executable", 127: "Command not found"}

RECORD = "Failed creating instance record"
CHANGE = "Invalid config"
_INIT = f"{RECORD}: Failed initializing instance"
NAME_TAKEN = (
    f'{RECORD}: Add instance info to the database: Failed to create "instances" entry:'
    " UNIQUE constraint failed: instances.project_id, instances.name"
)
NO_DEVICES = f"{_INIT}: Failed getting root disk: No root device could be found"
NO_ROOT_AMONG_DEVICES = (
    f"{_INIT}: Invalid devices: Failed detecting root disk device: No root device could be found"
)
NO_SUCH_POOL = f"{_INIT}: Failed loading storage pool: {POOL_NOT_FOUND}"
POOL_FULL = "Failed creating instance from image: Unable to unpack image, run out of disk space"


def instance_not_found(name: str, project: str) -> str:
    """The project has no such instance."""
    return f'Failed to fetch instance "{name}" in project "{project}": Instance not found'


def looked_first(name: str, missing: str) -> str:
    """The message of `delete` for a missing instance or project."""
    return f'Failed checking instance exists "local:{name}": {missing}'


def image_not_found(name: str) -> str:
    """Also for a missing project, or one without images."""
    return f'Image "{name}" not found'


def alias_taken(name: str) -> str:
    """An image, perhaps the same one, has this alias already."""
    return f'Alias "{name}" already exists'


def project_taken(name: str) -> str:
    """A project has this name already."""
    return (
        f'Failed creating project "{name}": Failed adding database record:'
        ' Failed to create "projects" entry: UNIQUE constraint failed: projects.name'
    )


def profile_taken(name: str) -> str:
    """A profile has this name already."""
    return f'Error inserting "{name}" into database: The profile already exists'


def unknown_config(key: str) -> str:
    """An unknown configuration key."""
    return f"Unknown configuration key: {key}"


def unknown_device_type(kind: str) -> str:
    """An unknown type of device."""
    return f'{RECORD}: Invalid device type "{kind}"'


def invalid_device(name: str, reason: str) -> str:
    """A device that the daemon refuses."""
    return f'{_INIT}: Invalid devices: Device validation failed for "{name}": {reason}'


NEEDS_NO_SECUREBOOT = (
    "The image used by this instance is incompatible with secureboot."
    " Please set security.secureboot=false on the instance"
)


def start_failed(name: str, reason: str) -> str:
    """A device with which an instance cannot start."""
    return f'Failed to start device "{name}": {reason}'


def none_of(value: str, allowed: str) -> str:
    """A value that a key does not allow; `allowed` are separated by spaces."""
    return f'Invalid value "{value}" (not one of [{allowed}])'


def missing_source(name: str, source: str) -> str:
    """A disk whose source does not exist on the host."""
    return (
        f'{_INIT}: Failed add validation for device "{name}":'
        f' Missing source path "{source}" for disk "{name}"'
    )


def missing_network(name: str, network: str) -> str:
    """A network card for a missing network. (The project is the network's.)"""
    return invalid_device(
        name,
        f'Failed loading device "{name}": Failed to load network "{network}" for project'
        ' "default": Network not found',
    )
