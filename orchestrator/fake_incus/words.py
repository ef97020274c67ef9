"""What Incus says when it refuses, in its own words (Incus 6.0.4, Debian bookworm-backports).

The client prints `Error: ` and the text on stderr, and ends with code 1. The tests compare
each text that pikaci relies on with a real daemon's.
"""

from __future__ import annotations


class Refused(Exception):
    """The daemon or its client says no; the message is what stands after `Error: `."""


class NotFaked(NotImplementedError):
    """The real Incus may well do this; the fake has not learnt it."""


DAEMON_DOWN = (
    "The incus daemon doesn't appear to be started (socket path: /var/lib/incus/unix.socket)"
)
CONNECTION_LOST = "websocket: close 1006 (abnormal closure): unexpected EOF"
INSTANCE_NOT_FOUND = "Instance not found"
IMAGE_ALIAS_NOT_FOUND = "Image alias not found"
PROJECT_NOT_FOUND = "Project not found"
PROFILE_NOT_FOUND = "Profile not found"
POOL_NOT_FOUND = "Storage pool not found"
NOT_RUNNING = "Instance is not running"
ALREADY_RUNNING = "The instance is already running"
ALREADY_STOPPED = "The instance is already stopped"
COMMAND_NOT_FOUND = "Command not found"
MUST_STOP_FIRST = "The instance is currently running, stop it first or pass --force"
NOT_PERMITTED = "You don't have the needed permissions to talk to the incus daemon"
BUSY_CREATING = 'Instance is busy running a "create" operation'
NAME_TAKEN = (
    "Failed instance creation: Failed creating instance record: Add instance info to the"
    ' database: Failed to create "instances" entry: UNIQUE constraint failed:'
    " instances.project_id, instances.name"
)
POOL_FULL = (
    "Failed instance creation: Failed creating instance from image: Unable to unpack image,"
    " run out of disk space"
)
NO_ROOT_DISK = (
    "Failed instance creation: Failed creating instance record: Failed initializing instance:"
    " Failed getting root disk: No root device could be found"
)


def image_not_found(name: str) -> str:
    """Also what a missing project, or one without images, looks like."""
    return f'Image "{name}" not found'


def invalid_device(name: str, reason: str) -> str:
    """A device that the daemon will not take."""
    failed = f'Device validation failed for "{name}": {reason}'
    return f"Failed instance creation: Invalid devices: {failed}"
