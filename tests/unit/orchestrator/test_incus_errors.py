"""The words of Incus, as types."""

import pytest

from orchestrator.incus.errors import (
    DaemonUnreachable,
    InstanceFrozen,
    MemberOffline,
    PoolFull,
    failed_call,
)


@pytest.mark.parametrize(
    "words",
    [
        "Failed to connect to cluster member: dial tcp 10.0.0.2:8443: connect: connection refused",
        "Target cluster member is offline",
        "The cluster member hosting the storage volume is offline",
        "Cluster member is evacuated",
        "failed to begin transaction: no known leader",
    ],
)
def test_a_lost_cluster_member_is_waited_for_and_named(words: str) -> None:
    """It is infrastructure, like a daemon that is away; its words and the way to look stand in it."""
    error = failed_call(["incus", "start", "local:a"], 1, f"Error: {words}\n".encode())

    assert type(error) is MemberOffline
    assert isinstance(error, DaemonUnreachable)
    assert error.retryable
    assert words in error.brief
    assert "incus cluster list" in error.resolution


def test_a_frozen_instance_is_named_with_the_way_out() -> None:
    """An exec into it ends at once."""
    error = failed_call(["incus", "exec", "local:a"], 1, b"Error: Instance is frozen\n")

    assert type(error) is InstanceFrozen
    assert "incus resume" in error.resolution


def test_a_full_pool_is_told_in_one_line_and_not_once_a_file() -> None:
    """tar names every file that had no room; nobody wants to read, or to keep, all of that."""
    files = "".join(f"tar: rootfs/{n}: No space left on device\n" for n in range(5000))
    text = f"Error: Failed creating instance from image: Unpack failed: (tar{' -x' * 200}\n{files}"

    error = failed_call(["incus", "create", "local:a"], 1, text.encode())

    assert type(error) is PoolFull
    assert error.brief.startswith("incus create failed: the storage pool is full: Failed")
    assert (True, True) == (len(error.brief) < 400, len(error.details) < 5000)
