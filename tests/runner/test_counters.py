"""What the kernel counts for all guests together: each guest has a part of it."""

from __future__ import annotations

from pathlib import Path

from .guest import CONTRACT, Guest, records, variables

COUNTERS = Path("/proc/sys/user")
# The kernel's limit for a user, and the least that a guest's user has of it.
LEAST = {"inotify_instances": 16, "inotify_watches": 4096, "fanotify_groups": 4}
LEAST |= {"fanotify_marks": 1024, "user_namespaces": 64, "net_namespaces": 64}


def limits() -> dict[str, int]:
    return {f.name.removeprefix("max_"): int(f.read_text()) for f in COUNTERS.iterdir()}


def test_users_of_a_guest_have_a_twentieth_each(guest: Guest) -> None:
    """In a user namespace of its own, as a container's. Sixteen guests leave the host some."""
    process = guest.popen(
        "--user", "--mount", "--pid", "--fork", "--mount-proc",
        "sh", "-c", 'echo ready >&2; read go; exec "$0"', CONTRACT["runner"],
        env=variables(f"grep -H . {COUNTERS}/*", 20, root=True),
        program="unshare",
    )  # fmt: skip
    assert process.stdin is not None and process.stderr is not None
    assert b"ready\n" == process.stderr.readline()
    pid = guest.pids_of(CONTRACT["runner"])[0]
    for ids in ("uid_map", "gid_map"):
        guest.path(f"/proc/{pid}/{ids}").write_text("0 0 65536")
    process.stdin.write(b"go\n" + records({"PIKACI_INCUS_NONCE": "n0nce"}))
    process.stdin.close()
    process.stdin = None
    ended = guest.ended(process)
    assert 0 == ended.code, ended
    lines = [line.split(":") for line in ended.output.decode().splitlines()]
    seen = {path.rpartition("/max_")[2]: int(value) for path, value in lines}
    host = limits()

    assert set(host) == set(seen)
    assert {name: max(host[name] // 20, least) for name, least in LEAST.items()} == {
        name: seen[name] for name in LEAST
    }


def test_the_first_namespace_keeps_its_limits(guest: Guest) -> None:
    """They are a VM's own, or the host's."""
    before = limits()
    ended = guest.run("true", root=True)

    assert (0, before) == (ended.code, limits())
