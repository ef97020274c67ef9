"""Trees as volumes of a host over TLS: what guests see there, and what is left after a cut."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.hosts.trees import Tree
from orchestrator.hosts.volume_calls import Pool, delete_volume, set_volume
from orchestrator.hosts.volumes import (
    CONTENT,
    UNTIL,
    WHOLE,
    VolumeDiffers,
    VolumeTrees,
    volume_of,
)
from orchestrator.incus import Call, Completed, Incus, spawn_process
from orchestrator.incus.errors import DaemonUnreachable, IncusError, OutcomeUnknown, VolumeInUse
from orchestrator.incus.retries import retrying
from states.errors import PikaciError
from tests.calls import call
from tests.integration.private_daemon import IMAGE
from tests.integration.tls_host import REMOTE, TlsHost

pytestmark = pytest.mark.incus

SECS = 60.0
LONG = 3600.0
AWAY = (DaemonUnreachable, OutcomeUnknown)
Deliver = Callable[..., Awaitable[None]]


@pytest.fixture
async def incus(far: TlsHost, tmp_path: Path) -> Incus:
    """The host over TLS."""
    return await far.reached(tmp_path / "conf")


@pytest.fixture
def deliver(far: TlsHost, incus: Incus) -> Deliver:
    """Deliver a tree as a process of its own would, that waits for a daemon that is away."""

    async def deliver(tree: Tree, *, incus: Incus = incus) -> None:
        send = partial(VolumeTrees(incus, far.pool).deliver, [tree], lease_secs=LONG)
        await retrying(send, on=AWAY, secs=SECS)

    return deliver


def a_tree(base: Path, content: str = "one") -> Tree:
    path = base / content
    path.mkdir()
    (path / "hello").write_text(f"{content}\n")
    return Tree(content, path)


async def guest(
    incus: Incus, far: TlsHost, name: str, tree: Tree
) -> Callable[..., Awaitable[bytes]]:
    """A running guest that has the tree; it runs a command and returns what that prints."""
    disk = {"type": "disk", "pool": far.pool, "path": "/tree", "readonly": "true"}
    root = {"type": "disk", "pool": far.pool, "path": "/"}
    document = {
        "config": {"security.idmap.isolated": "true"},
        "devices": {"root": root, "tree": {**disk, "source": f"{volume_of(tree)}/tree"}},
    }
    instance = incus.name(name)
    made = ("create", "--quiet", "--no-profiles", f"{REMOTE}:{IMAGE}", instance)
    await call(incus, *made, stdin=json.dumps(document).encode())
    await call(incus, "start", "--quiet", instance)

    async def run(script: str) -> bytes:
        done = await call(incus, "exec", instance, "--", "sh", "-c", script, check=False)
        return done.stdout + done.stderr

    return run


def listed(path: Path) -> bytes:
    """What `LIST` prints of a tree, made here, whose files all belong to the job's user."""
    lines = []
    for root, directories, files in os.walk(os.fsencode(path)):
        for name in [
            b"",
            *files,
            *(one for one in directories if os.path.islink(root + b"/" + one)),
        ]:
            here = os.path.join(root, name) if name else root
            status = os.lstat(here)
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            target = os.readlink(here) if os.path.islink(here) else b""
            kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l"}.get(stat.S_IFMT(status.st_mode), "f")
            below = here[len(os.fsencode(path)) :].removeprefix(b"/")
            lines.append(
                b"%s %o 1000:100 %d %d.%09d0 %s>%s\0"
                % (
                    kind.encode(),
                    stat.S_IMODE(status.st_mode),
                    size,
                    *divmod(status.st_mtime_ns, 10**9),
                    below,
                    target,
                )
            )
    return b"".join(sorted(lines))


LIST = r"""
cd /tree && find . \( -type d -printf '%y %m %U:%G 0 %T@ %P>%l\0' \) \
  -o -printf '%y %m %U:%G %s %T@ %P>%l\0' | LC_ALL=C sort -z
"""


async def test_a_guest_sees_the_tree_as_it_is_here(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    """Names of any bytes, links that lead anywhere, every mode, holes, times, no file at all."""
    path = tmp_path / "hostile"
    (path / "empty").mkdir(parents=True)
    base = os.fsencode(path) + b"/"
    names = [
        b"\xff\xfe",
        b"a\nb",
        "ü☃".encode(),
        b"-rf",
        b"$(id)",
        b"n" * 255,
        b"back\\slash",
        b" ",
    ]
    for name in names:
        Path(os.fsdecode(base + name)).write_bytes(name)
    for number, mode in enumerate((0o600, 0o000, 0o4755, 0o2750, 0o1644, 0o777)):
        made = path / f"mode-{number}"
        made.write_text("x")
        made.chmod(mode)
    deep = base + b"/".join([b"d" * 200] * 15)
    os.makedirs(deep)
    Path(os.fsdecode(deep), "file").write_text("deep")
    for name, target in (
        (b"abs", b"/etc/passwd"),
        (b"up", b"../../../../etc"),
        (b"long", b"t/" * 1500),
        (b"none", b"\xff"),
    ):
        os.symlink(target, base + name)
    with (path / "holes").open("wb") as file:
        for number in range(100):
            file.seek(number << 24)
            file.write(b"%d" % number)
        file.truncate(1 << 40)
    with (path / "hole").open("wb") as file:
        file.truncate(12345)
    os.utime(path / "hole", ns=(0, 1_234_567_890_123_456_789))
    (path / "empty").chmod(0o1777)
    path.chmod(0o755)
    tree = Tree("hostile", path)

    await deliver(tree)
    run = await guest(incus, far, "sees", tree)

    assert listed(path) == await run(LIST)
    assert b"deep" == await run("cat /tree/d*/d*/d*/d*/d*/d*/d*/d*/d*/d*/d*/d*/d*/d*/d*/file")
    assert b"99" == await run("tail -c +$(( (99 << 24) + 1 )) /tree/holes | head -c 2")
    assert b"Read-only file system" in await run("touch /tree/new")
    assert b"x" == await run("setpriv --reuid 1000 --regid 100 --clear-groups cat /tree/mode-0")


async def test_an_empty_tree_is_a_tree(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    tree = Tree("empty", tmp_path / "empty")
    tree.path.mkdir()
    await deliver(tree)

    run = await guest(incus, far, "empty", tree)

    assert listed(tree.path) == await run(LIST)
    assert b"/tree is a mountpoint\n" == await run("mountpoint /tree")


async def test_many_guests_share_a_tree_that_went_over_once(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    """An unchanged tree costs one question; nobody deletes it below a guest, running or not."""
    tree = a_tree(tmp_path)
    calls: list[Call] = []
    for _ in range(3):
        await deliver(tree, incus=incus.observed(calls.append))

    runs = [await guest(incus, far, f"one-{number}", tree) for number in range(3)]
    seen = [await run("cat /tree/hello; awk '{ print $2 }' /proc/self/uid_map") for run in runs]
    await call(incus, "stop", "--force", incus.name("one-2"))
    for number in range(2):
        await call(incus, "delete", "--force", incus.name(f"one-{number}"))

    sent = [one.effect for one in calls]
    first = ["query", "import volume", "query POST", "query", "query PATCH"]
    assert [*first, "query", "query"] == sent
    assert [volume_of(tree)] == far.volumes()
    assert [b"one"] * 3 == [text.split()[0] for text in seen]
    assert 3 == len({text.split()[1] for text in seen})
    with pytest.raises(VolumeInUse):
        await incus.perform(delete_volume(incus, Pool(far.pool), volume_of(tree)))


async def test_publishers_at_once_agree(far: TlsHost, deliver: Deliver, tmp_path: Path) -> None:
    tree = a_tree(tmp_path)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(deliver, tree)

    assert [volume_of(tree)] == far.volumes()


async def test_a_tree_goes_over_once_for_the_jobs_of_a_process(
    far: TlsHost, incus: Incus, tmp_path: Path
) -> None:
    tree = a_tree(tmp_path)
    calls: list[Call] = []
    trees = VolumeTrees(incus.observed(calls.append), far.pool)
    again = partial(trees.deliver, [tree], lease_secs=LONG)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(again)

    assert 1 == [one.effect for one in calls].count("import volume")


@pytest.mark.parametrize("after_secs", [0.0, 0.05, 0.15, 0.3, 0.6])
async def test_a_cut_leaves_nothing_that_looks_ready(
    far: TlsHost,
    incus: Incus,
    deliver: Deliver,
    tmp_path: Path,
    after_secs: float,
) -> None:
    """The tree is there and whole, or its name is free; the next delivery makes it."""
    tree = a_tree(tmp_path)
    (tree.path / "large").write_bytes(os.urandom(20 << 20))

    with trio.move_on_after(after_secs):
        await deliver(tree)
    left = far.volumes()
    await deliver(tree)

    run = await guest(incus, far, "cut", tree)
    assert left in ([], [volume_of(tree)])
    assert listed(tree.path) == await run(LIST)


async def test_a_daemon_that_is_killed_meanwhile_gets_the_tree_from_its_next_life(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    tree = a_tree(tmp_path)
    (tree.path / "large").write_bytes(os.urandom(50 << 20))

    async def kill() -> None:
        await trio.sleep(0.3)
        far.daemon.signal(signal.SIGKILL)
        await trio.to_thread.run_sync(far.daemon.start)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        await deliver(tree)

    run = await guest(incus, far, "killed", tree)
    assert listed(tree.path) == await run(LIST)


async def test_a_tree_that_cannot_be_sent_makes_no_volume(
    far: TlsHost, deliver: Deliver, tmp_path: Path
) -> None:
    """What the host got until then has no index, and Incus refuses it."""
    tree = a_tree(tmp_path)
    os.mkfifo(tree.path / "pipe")

    with pytest.raises(PikaciError, match="pipe' cannot be sent to another host"):
        await deliver(tree)

    assert [] == far.volumes()


async def test_a_full_pool_is_named(far: TlsHost, deliver: Deliver, tmp_path: Path) -> None:
    tree = a_tree(tmp_path)
    filling = far.daemon.pool / "filling"
    with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 20))
    (tree.path / "large").write_bytes(os.urandom(20 << 20))
    try:
        with pytest.raises(IncusError, match="pool is full"):
            await deliver(tree)
    finally:
        filling.unlink()

    assert [] == far.volumes()


async def test_each_delivery_puts_the_end_of_a_volume_off(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    tree = a_tree(tmp_path)
    await deliver(tree)
    past = {UNTIL: "2020-01-01T00:00:00+00:00"}
    await incus.perform(set_volume(incus, Pool(far.pool), volume_of(tree), past))
    await deliver(tree)

    config = json.loads(
        far.daemon.incus(
            "query",
            f"/1.0/storage-pools/{far.pool}/volumes/custom/{volume_of(tree)}?project={far.project}",
        )
    )["config"]

    assert "2020" < config[UNTIL][:4]
    assert "true" == config["security.shifted"]


async def test_a_volume_that_somebody_changed_is_not_used(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    tree = a_tree(tmp_path)
    await deliver(tree)
    await incus.perform(set_volume(incus, Pool(far.pool), volume_of(tree), {CONTENT: "x"}))

    with pytest.raises(VolumeDiffers, match="is not the tree that its name says"):
        await deliver(tree)


async def test_a_volume_that_got_its_name_from_a_killed_daemon_is_made_anew(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    """It was renamed in the database, and not on the disk; nobody ever marked it."""
    tree = a_tree(tmp_path)
    await deliver(tree)
    name = volume_of(tree)
    await incus.perform(set_volume(incus, Pool(far.pool), name, {WHOLE: ""}))
    there = far.daemon.pool / "custom" / f"{far.project}_{name}"
    there.rename(there.with_name("elsewhere"))

    await deliver(tree)

    run = await guest(incus, far, "anew", tree)
    assert b"one\n" == await run("cat /tree/hello")
    subprocess.run(["btrfs", "subvolume", "delete", there.with_name("elsewhere")], check=True)


async def test_a_sweep_takes_what_is_past_its_time(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    """Not a tree that an instance has, running or not, nor one that is needed, nor a stranger's."""
    day = timedelta(days=1)
    past = {UNTIL: (datetime.now(UTC) - day).isoformat()}
    trees = {name: a_tree(tmp_path, name) for name in ("idle", "needed", "running", "stopped")}
    for name, tree in trees.items():
        await deliver(tree)
        if name != "needed":
            await incus.perform(set_volume(incus, Pool(far.pool), volume_of(tree), past))
    for name in ("running", "stopped"):
        await guest(incus, far, name, trees[name])
    await call(incus, "stop", "--force", incus.name("stopped"))
    unfinished = ("pikaci-new-1", {CONTENT: "x", **past})
    for name, config in (unfinished, ("pikaci-mine", past), ("other", {CONTENT: "x", **past})):
        options = [f"{key}={value}" for key, value in config.items()]
        await call(incus, "storage", "volume", "create", incus.name(far.pool), name, *options)
    before = far.volumes()
    volumes = VolumeTrees(incus, far.pool)
    gone = sorted([volume_of(trees["idle"]), "pikaci-new-1"])

    assert ["pikaci-new-1"] == await volumes.sweep(idle_secs=2 * day.total_seconds(), dry_run=True)
    assert gone == sorted(await volumes.sweep(idle_secs=60, dry_run=True))
    assert before == far.volumes()
    assert gone == sorted(await volumes.sweep(idle_secs=60))
    assert gone == sorted(set(before) - set(far.volumes()))
    assert [] == await volumes.sweep(idle_secs=60)


async def test_a_volume_that_an_instance_gets_meanwhile_stays(
    far: TlsHost, incus: Incus, deliver: Deliver, tmp_path: Path
) -> None:
    """The sweep saw that nobody had it."""
    tree = a_tree(tmp_path)
    await deliver(tree)
    past = {UNTIL: "2020-01-01T00:00:00+00:00"}
    await incus.perform(set_volume(incus, Pool(far.pool), volume_of(tree), past))

    async def spawn(argv: Sequence[str], **options: Any) -> Completed:
        if "DELETE" in argv:
            await guest(incus, far, "meanwhile", tree)
        return await spawn_process(argv, **options)

    slow = Incus(incus.conf, project=far.project, remote=REMOTE, spawn=spawn)

    assert [] == await VolumeTrees(slow, far.pool).sweep(idle_secs=0)
    assert [volume_of(tree)] == far.volumes()
