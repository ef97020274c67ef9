"""What two guests of one kernel can tell each other, and use up for each other: nothing.

A container's uid 1000 is the same uid of the kernel in every guest.
"""

from __future__ import annotations

import errno
import os
import platform
import subprocess
from pathlib import Path

import pytest

from states import events as ev
from states.job import Job
from states.outcome import Outcome
from states.rules import MIN_PROCESSES
from states.spec import JobSpec, Mount
from tests.calls import call as call_incus
from tests.integration.command import SECS, Command
from tests.integration.running import Runs, infrastructure, output_of

pytestmark = pytest.mark.incus

# x86_64 and aarch64; perl is in every Debian, and makes any syscall.
NUMBERS = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "syslog": (103, 116),
    "socket": (41, 198),
    "io_uring_setup": (425, 425),
    "inotify_init1": (294, 26),
    "sendmsg": (46, 211),
}
NUMBER = {name: pair[platform.machine() == "aarch64"] for name, pair in NUMBERS.items()}
USER_RING, SESSION_RING = -4, -3
KEYCTL_SEARCH = 10
READ_ALL = 3
UNIX, INET, VSOCK, QIPCRTR = 1, 2, 40, 42
STREAM = 1


def call(name: str, *arguments: int | str) -> str:
    """A shell command that prints the syscall's name, and `ok` or the error's number."""
    given = ",".join(f'"{a}"' if isinstance(a, str) else str(a) for a in arguments)
    program = (
        f"my @a = ({given}); my $r = syscall({NUMBER[name]}, @a);"
        f' print "{name} ", $r < 0 ? $! + 0 : "ok", "\\n"'
    )
    return f"perl -e '{program}'"


def said(*results: str) -> bytes:
    """What such commands print, with the errors' names."""
    return "".join(
        f"{name} {getattr(errno, result, result)}\n"
        for name, result in (line.split() for line in results)
    ).encode()


def script(*calls: str) -> str:
    return "\n".join(calls)


KEYS = script(
    call("add_key", "user", "pikaci", "secret", 6, USER_RING),
    call("request_key", "user", "pikaci", 0, USER_RING),
    call("keyctl", KEYCTL_SEARCH, USER_RING, "user", "pikaci", 0),
    call("keyctl", 0, SESSION_RING, 0),
)
NO_KEYS = said("add_key ENOSYS", "request_key ENOSYS", "keyctl ENOSYS", "keyctl ENOSYS")


async def test_no_guest_has_key_rings(runs: Runs) -> None:
    """Neither of two guests, neither of the two users: what one adds the other could read."""
    specs = {
        f"{user}-{number}": JobSpec(command=KEYS, run_as_root=user == "root")
        for user in ("pikaci", "root")
        for number in (1, 2)
    }

    jobs = await runs.run(specs)

    assert {NO_KEYS} == {output_of(job) for job in jobs.values()}


async def test_no_guest_reads_the_kernel_s_log(runs: Runs) -> None:
    """A process that crashes in one guest puts its name into it."""
    job = await runs.run_one(JobSpec(command=call("syslog", READ_ALL, 0, 0), run_as_root=True))

    assert said("syslog EPERM") == output_of(job)


async def test_sockets_without_a_network_stay_in_the_guest(runs: Runs) -> None:
    """AF_VSOCK reaches the hypervisor and other guests, with no interface at all."""
    high = VSOCK | 1 << 32  # the kernel reads the lower half
    job = await runs.run_one(
        JobSpec(
            command=script(
                call("socket", VSOCK, STREAM, 0),
                call("socket", high, STREAM, 0),
                call("socket", QIPCRTR, 2, 0),
                call("io_uring_setup", 4, 0),
                call("socket", UNIX, STREAM, 0),
                call("socket", INET, STREAM, 0),
            ),
            run_as_root=True,
        )
    )

    denied = ["socket EAFNOSUPPORT"] * 3 + ["io_uring_setup ENOSYS"]
    assert said(*denied, "socket ok", "socket ok") == output_of(job)


async def test_programs_that_ask_for_key_rings_go_on(runs: Runs) -> None:
    """Logins join a session key ring where there are some; these have none, and succeed."""
    job = await runs.run_one(
        JobSpec(
            command="su -l pikaci -c 'echo $LOGNAME' && runuser -u pikaci -- id -un",
            run_as_root=True,
        )
    )

    assert (Outcome.PASSED, b"pikaci\npikaci\n") == (job.outcome, output_of(job))


async def test_a_job_cannot_use_up_the_inotify_instances_of_all_guests(runs: Runs) -> None:
    """They are the host's root's, whoever makes them: sixteen such jobs leave some."""
    host = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    limit = "/proc/sys/user/max_inotify_instances"
    take = f'$n++ while syscall({NUMBER["inotify_init1"]}, 0) >= 0; print "$n\\n"'
    job = await runs.run_one(
        JobSpec(command=f"! echo {host} >{limit}; ulimit -Sn hard; perl -e '{take}'")
    )

    *refused, taken = output_of(job).splitlines()
    assert b"Permission denied" in b"".join(refused)
    assert host // 25 < int(taken) < host // 16


# Sends its own socket over itself; the kernel counts what was not received yet.
SENDS = f"""
use Socket;
socketpair(my $one, my $other, AF_UNIX, SOCK_STREAM, 0) or die;
my ($messages, $descriptors) = @ARGV;
for (1 .. $messages) {{
    my $data = pack("i*", (fileno $one) x $descriptors);
    my $control = pack("Q i i", 16 + length $data, 1, 1) . $data;
    $control .= "\\0" x (-length($control) % 8);
    my $byte = "x";
    my $vector = pack("P Q", $byte, 1);
    my $length = length $control;
    my $message = pack("Q L x4 P Q P Q i x4", 0, 0, $vector, 1, $control, $length, 0);
    my $sent = syscall({NUMBER["sendmsg"]}, fileno $one, $message, 0);
    if ($sent < 0) {{ print "sendmsg ", $! + 0, "\\n"; exit }}
}}
$| = 1;
print "sendmsg ok\\n";
until ($messages == 1 || -e "/tmp/go") {{ select undef, undef, undef, 0.05 }}
"""


async def test_a_job_cannot_use_up_the_descriptors_in_flight_of_another(
    tmp_path: Path, runs: Runs
) -> None:
    """Each of them has as many as its own limit says: they are counted for an id of the host."""
    (tmp_path / "another").mkdir()
    another = Runs(tmp_path / "another", runs.there)
    for of in (runs, another):
        (of.workspace / "sends.pl").write_text(SENDS)
    neighbours: list[Job] = []

    async def run_another(running: ev.Entry) -> None:
        await runs.logged(running.job, b"sendmsg ok")
        few = JobSpec(command="ulimit -Sn 1024; perl sends.pl 1 1")
        neighbours.append(await another.run_one(few))
        (guest,) = await runs.instances()
        there = runs.incus.name(guest)
        await call_incus(runs.incus, "exec", there, "--", "touch", "/tmp/go", deadline_secs=SECS)

    many = JobSpec(command="ulimit -Sn hard; perl sends.pl 25 200", timeout_secs=SECS)
    job = await runs.run_one(many, on_running=run_another)

    assert (Outcome.PASSED, b"sendmsg ok\n") == (job.outcome, output_of(job))
    assert b"sendmsg ok\n" == output_of(neighbours[0])


async def test_files_are_read_whoever_has_them_on_the_host(tmp_path: Path, runs: Runs) -> None:
    """Those of ids that are in no map of the guest's are nobody's there."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, owner, mode in [("a", 0, 0o644), ("b", 1000, 0o600), ("c", 3_000_000, 0o644)]:
        (mounted / name).write_text(f"{name}\n")
        (mounted / name).chmod(mode)
        os.chown(mounted / name, owner, owner)
    (runs.workspace / "private").write_text("d\n")
    (runs.workspace / "private").chmod(0o600)

    job = await runs.run_one(
        JobSpec(command="cat /data/* private", mounts=(Mount(str(mounted), "/data"),))
    )

    assert (Outcome.PASSED, b"a\nb\nc\nd\n") == (job.outcome, output_of(job))


async def test_a_link_in_the_place_of_a_directory_is_not_mounted(
    tmp_path: Path, runs: Runs
) -> None:
    """Not even when it comes there while the guest is made."""
    data = tmp_path / "data"
    data.mkdir()

    def swap(argv: tuple[str, ...]) -> tuple[str, ...]:
        if argv[1] == "launch":
            data.rmdir()
            data.symlink_to("/etc")
        return argv

    spec = JobSpec(command="ls /data", mounts=(Mount(str(data), "/data"),))
    job = await runs.run_one(spec, change=swap)

    assert infrastructure(job, "mounts[0].source", "now leads to '/etc'")


WRITES = """
touch new; echo root >other
for path in /workspace/snapshot "$(readlink -f .)"; do
  mount -o remount,rw "$path"
  mount -o remount,rw,bind "$path"
  mkdir -p /tmp/second && mount --bind "$path" /tmp/second && mount -o remount,rw,bind /tmp/second
  for file in "$path/hello.txt" /tmp/second/hello.txt; do
    echo changed >"$file"; chmod 777 "$file"; chown 0 "$file"; truncate -s 0 "$file"
    touch -d @1 "$file"; rm -f "$file"; ln "$file" /tmp/linked
  done
done 2>/dev/null
umount -l . ; echo changed >/workspace/snapshot/hello.txt
true
"""


async def test_no_root_of_a_guest_changes_a_file_that_snapshots_share(runs: Runs) -> None:
    """An unchanged file is one file in all snapshots of a workspace, whatever guests try."""
    before = await runs.run_one(JobSpec(command="true"))
    assert before.snapshot is not None
    first = runs.root.snapshots / before.snapshot.hash / "hello.txt"
    known = first.stat()
    (runs.workspace / "other").write_text("other\n")
    jobs = await runs.run(
        {
            "root": JobSpec(command=f"set +e\n{WRITES}", run_as_root=True),
            "scratch": JobSpec(command=f"set +e\n{WRITES}", run_as_root=True, scratch=True),
        }
    )
    assert jobs["root"].snapshot is not None
    second = runs.root.snapshots / jobs["root"].snapshot.hash

    now = first.stat()
    assert {Outcome.PASSED} == {job.outcome for job in jobs.values()}
    assert (now.st_ino, 2) == ((second / "hello.txt").stat().st_ino, now.st_nlink)
    assert "hello\n" == first.read_text()
    assert (known.st_mode, known.st_uid, known.st_mtime_ns) == (
        now.st_mode,
        now.st_uid,
        now.st_mtime_ns,
    )
    assert {"hello.txt", "other"} == {path.name for path in second.iterdir()}


@pytest.mark.parametrize("root", [False, True], ids=["user", "root"])
async def test_the_fewest_processes_are_enough_for_a_job(runs: Runs, root: bool) -> None:
    """For the guest, its runner, what the host calls meanwhile, and a command with some more."""
    command = "for _ in $(seq 20); do sleep 0.5 & done; wait; echo done"
    job = await runs.run_one(
        JobSpec(command=command, processes=MIN_PROCESSES, run_as_root=root, artifacts=("**",))
    )

    assert (Outcome.PASSED, b"done\n") == (job.outcome, output_of(job))


MOUNTS = """
schema = 1
[jobs.incus]
command = "true"
run_as_root = true
mounts = [{ source = "/var/lib/incus", path = "/mnt/incus" }]
"""
DATA = """
schema = 1
[jobs.data]
command = "cat /mnt/data/words"
mounts = [{ source = "data", path = "/mnt/data" }]
"""


def test_a_job_that_mounts_incus_s_own_directory_does_not_run(pikaci: Command) -> None:
    """Its guest would talk to the daemon's socket, and be root on the host."""
    pikaci.write(MOUNTS)
    done = pikaci("run")
    planned = pikaci("run", "--dry-run")

    assert (2, 2) == (done.returncode, planned.returncode)
    for stderr in (done.stderr, planned.stderr):
        assert "jobs.incus.mounts[0].source '/var/lib/incus' is" in stderr
    assert not (pikaci.root / "journal.sqlite3").exists()


def test_a_service_mounts_what_its_operator_allows(pikaci: Command) -> None:
    """`pikaci run` that goes through it says what to type."""
    data = pikaci.workspace / "data"
    data.mkdir()
    (data / "words").write_text("of the host\n")
    pikaci.write(DATA)

    def run_by_service(*options: str) -> subprocess.CompletedProcess[str]:
        service = pikaci.run_until("serving", "serve", *options)
        try:
            return pikaci("run")
        finally:
            service.terminate()
            service.communicate(timeout=SECS)

    refused = run_by_service()
    allowed = run_by_service("--allow-mounts", str(data))

    assert (2, 0) == (refused.returncode, allowed.returncode)
    assert f"pikaci serve --allow-mounts {data}" in refused.stderr
