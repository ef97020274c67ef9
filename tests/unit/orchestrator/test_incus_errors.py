"""The words of Incus, as types."""

import pytest

from orchestrator.incus import Host
from orchestrator.incus.errors import (
    CertificateChanged,
    ClusterSilent,
    DaemonOutgrown,
    DaemonUnreachable,
    IncusError,
    InstanceFrozen,
    MemberOffline,
    NameTaken,
    NotTrusted,
    OutcomeUnknown,
    PoolFull,
    ProjectForbidden,
    RemoteMissing,
    RestrictedProject,
    TokenRefused,
    VolumeInUse,
    VolumeNotFound,
    broken_off,
    failed_call,
)


@pytest.mark.parametrize(
    "words",
    [
        "Failed to connect to cluster member: dial tcp 10.0.0.2:8443: connect: connection refused",
        "Missing event connection with target cluster member",
        "failed to begin transaction: no known leader",
        "failed to create cowsql connection: no available cowsql leader server found",
    ],
)
def test_a_cluster_that_does_not_answer_is_waited_for_and_named(words: str) -> None:
    """It is infrastructure, like a daemon that is away; its words and the way to look stand in it."""
    error = failed_call(["incus", "start", "local:a"], 1, f"Error: {words}\n".encode())

    assert type(error) is ClusterSilent
    assert isinstance(error, DaemonUnreachable)
    assert error.retryable
    assert words in error.brief
    assert "incus cluster list" in error.resolution


@pytest.mark.parametrize(
    "words",
    [
        "Only running operations can be connected",
        "Timed out waiting for websockets to connect",
    ],
)
def test_an_exec_that_did_not_begin_is_no_end_of_its_command(words: str) -> None:
    """On a busy machine: the client connects too late."""
    error = broken_off(["incus", "exec", "local:a"], 1, f"Error: {words}\n".encode())

    assert type(error) is OutcomeUnknown


@pytest.mark.parametrize(
    "words",
    [
        "Target cluster member is offline",
        "The cluster member hosting the storage volume is offline",
        "Cluster member is evacuated",
    ],
)
def test_a_member_that_is_known_to_be_away_is_not_waited_for(words: str) -> None:
    """The others work: what has not begun there is done elsewhere."""
    error = failed_call(["incus", "create", "local:a"], 1, f"Error: {words}\n".encode())

    assert type(error) is MemberOffline
    assert not isinstance(error, DaemonUnreachable)
    assert error.answered
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


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ('Get "https://b:8443/1.0": lookup b on 10.0.0.1:53: no such host', DaemonUnreachable),
        ('Get "https://b:8443/1.0": Unable to connect to: b:8443 ([dial tcp 10.0.0.1:8443: connect: no route to host])', DaemonUnreachable),
        ('Get "https://b:8443/1.0": Unable to connect to: b:8443 ([dial tcp 10.0.0.1:8443: i/o timeout])', DaemonUnreachable),
        ('Get "https://b:8443/1.0": net/http: TLS handshake timeout', DaemonUnreachable),
        ('Get "https://b:8443/1.0": tls: failed to verify certificate: x509: certificate signed by unknown authority', CertificateChanged),
        ("Missing TLS client certificate and key", NotTrusted),
        ("Failed to create certificate: No matching certificate add operation found", TokenRefused),
        ('The remote "far" doesn\'t exist', RemoteMissing),
        ('User does not have permissions for project "other"', ProjectForbidden),
        ("Certificate is restricted", ProjectForbidden),
        ('Failed checking if instance creation allowed: Invalid device "s" on container "t1" of project "p": Attaching disks not backed by a pool is forbidden', RestrictedProject),
        ("This project doesn't allow cluster member targeting", RestrictedProject),
        ('Invalid devices: Device validation failed for "e": Failed to load network "x" for project "default": Network not found', IncusError),
        ("Storage pool volume not found", VolumeNotFound),
        ("The storage volume is still in use", VolumeInUse),
        ("UNIQUE constraint failed: index 'storage_volumes_unique_storage_pool_id_node_id_project_id_name_type'", NameTaken),
        ("Volume by that name already exists", NameTaken),
    ],
)  # fmt: skip
def test_a_host_over_tls_has_words_of_its_own(words: str, kind: type[IncusError]) -> None:
    error = failed_call(["incus", "query", "far:/1.0"], 1, f"Error: {words}\n".encode())

    assert type(error) is kind
    assert isinstance(error, DaemonUnreachable) == error.retryable or kind is VolumeNotFound


def test_a_pool_with_room_for_a_part_of_a_block_is_full() -> None:
    """tar names the lengths then, and no reason."""
    text = (
        "Error: Create custom volume from backup: Error starting unpack: Failed to run: tar -zxf -:"
        " exit status 2 (tar: ./large: Wrote only 512 of 10240 bytes\n"
        "tar: Exiting with failure status due to previous errors)\n"
    )

    assert type(failed_call(["incus", "storage"], 1, text.encode())) is PoolFull


@pytest.mark.parametrize(
    "words",
    [
        "read tcp 10.0.0.2:54202->10.0.0.1:8443: read: connection timed out",
        "read tcp [fd00::2]:54202->[fd00::1]:8443: read: no route to host",
        "write tcp 10.0.0.2:54202->10.0.0.1:8443: write: broken pipe",
        "read vsock vm(4294967295):2821592666->vm(1387541628):8443: i/o timeout",
        "write vsock vm(4294967295):1->vm(2):8443: write: broken pipe",
        "Failed to start exec: read vsock vm(4294967295):1->vm(2):8443: i/o timeout",
        'Get "https://10.0.0.1:8443/1.0/events": read tcp 10.0.0.2:1->10.0.0.1:8443: i/o timeout',
        'Post "https://10.0.0.1:8443/1.0/storage-pools/p/volumes/custom?project=p": use of closed network connection',
        'Post "https://10.0.0.1:8443/1.0/images": http: server closed idle connection',
        'Put "http://unix.socket/1.0/instances/a": net/http: HTTP/1.x transport connection broken: write unix @->/s: write: broken pipe',
    ],
)
@pytest.mark.parametrize("exit_code", [1, 255])
def test_a_connection_that_breaks_is_no_end_of_the_command(words: str, exit_code: int) -> None:
    """Nor may the call be made again, as if it had reached nobody: it may have been carried out."""
    argv = ["incus", "exec", "far:a"]

    error = broken_off(argv, exit_code, f"Error: {words}\n".encode())

    assert type(error) is OutcomeUnknown
    assert type(failed_call(argv, 1, f"Error: {words}\n".encode())) is OutcomeUnknown


def test_what_is_said_of_another_host_names_it_and_where_to_type_what() -> None:
    """And of this machine's, no host."""
    full = b"Error: write /x: No space left on device"
    down = b"Error: Get https://x: dial tcp 1.2.3.4:8443: connect: connection refused"
    said = {
        on: [failed_call(["incus", "start"], 1, text, on=on).resolution for text in (full, down)]
        for on in (Host().on, Host(name="build").on)
    }

    assert ["`incus storage info pikaci` shows", "`incus storage info pikaci` on build shows"] == [
        one[0].partition("; ")[2].removesuffix(" the pool") for one in said.values()
    ]
    assert ["`pikaci doctor` says", "`pikaci host check build` says"] == [
        one[1].removesuffix(" what is missing") for one in said.values()
    ]


@pytest.mark.parametrize(
    "words",
    [
        "Failed getting instance SFTP connection: Failed to run forkfile: fork/exec"
        " /usr/libexec/incus/incusd: cannot allocate memory:",
        "Failed to run: /usr/libexec/incus/incusd forkstart a /var/lib/incus/containers"
        " /run/incus/a/lxc.conf: fork/exec /usr/libexec/incus/incusd: cannot allocate memory",
    ],
)
def test_a_daemon_that_has_outgrown_the_memory(words: str) -> None:
    """It stays so until it is restarted: another try would not help, and the hint says what does."""
    error = failed_call(["incus", "start", "local:a"], 1, f"Error: {words}\n".encode())

    assert type(error) is DaemonOutgrown
    assert "restart the Incus daemon" in error.resolution
