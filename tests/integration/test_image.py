"""Guest images on the real Incus: found, replaced without a gap, and judged."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
import trio

from orchestrator.contract import guest_files
from orchestrator.host.setup import DEV_IMAGE, setup
from orchestrator.image.check import Row, check_image
from orchestrator.image.store import (
    ImageMissing,
    NotAnImage,
    WrongContract,
    WrongType,
    find_image,
    import_image,
    list_images,
)
from orchestrator.incus import Host, Incus
from orchestrator.incus.errors import InstanceNotFound
from orchestrator.settings import open_incus
from states.spec import InstanceType
from tests.calls import call
from tests.integration.slim_image import export_slim_image

pytestmark = pytest.mark.incus
ALIAS = f"test/image-{os.getpid()}"
OWNER = f"test-{os.getpid()}"


def image_file(base: Path, mark: str, **properties: str) -> Path:
    """An image that boots nothing: enough to be imported.

    Its bytes are this process's own: with the same ones another run of the tests would have the
    same image, and delete it.
    """
    path = base / f"{mark}.tar"
    metadata = {
        "architecture": os.uname().machine,
        "creation_date": 1,
        "properties": {"description": mark, **properties},
    }
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("metadata.yaml", msgspec.json.encode(metadata)),
            ("rootfs/mark", f"{mark} of {os.getpid()}".encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
async def incus() -> AsyncIterator[Incus]:
    """The daemon; images of the test's alias are gone afterwards."""
    daemon = open_incus()
    yield daemon
    for image in await list_images(daemon):
        if image.has_alias(ALIAS):
            await call(daemon, "image", "delete", daemon.name(image.fingerprint), deadline_secs=60)


KEPT = {"pikaci.contract": "1"}


async def is_there(incus: Incus, file: Path) -> bool:
    """Whether the project has an image of this file."""
    fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()
    return any(image.fingerprint == fingerprint for image in await list_images(incus))


async def test_an_image_takes_the_place_of_another_without_a_gap(
    incus: Incus, tmp_path: Path
) -> None:
    """While it is replaced again and again, the alias always names an image; old ones go."""
    path = f"local:/1.0/images/aliases/{quote(ALIAS, safe='')}?project={incus.project}"
    files = [image_file(tmp_path, f"{number}", **KEPT) for number in range(6)]
    first = await import_image(incus, files[:1], ALIAS)
    looks = 0

    async with trio.open_nursery() as nursery:

        async def look() -> None:
            nonlocal looks
            while True:
                await call(incus, "query", path, deadline_secs=30, in_project=False)
                looks += 1

        for _ in range(3):
            nursery.start_soon(look)
        for file in files[1:]:
            last = await import_image(incus, [file], ALIAS)
        nursery.cancel_scope.cancel()

    ours = [image for image in await list_images(incus) if image.has_alias(ALIAS)]
    assert [last] == [image.fingerprint for image in ours]
    assert looks > len(files)
    assert all(image.fingerprint != first for image in await list_images(incus))


async def test_the_same_image_again_changes_nothing(incus: Incus, tmp_path: Path) -> None:
    """An import of what is there is no error."""
    files = [image_file(tmp_path, "same", **KEPT)]

    assert await import_image(incus, files, ALIAS) == await import_image(incus, files, ALIAS)


@pytest.mark.parametrize(("version", "found"), [(None, "none"), ("9", "9")])
async def test_an_image_of_another_contract_gets_no_alias(
    incus: Incus, tmp_path: Path, version: str | None, found: str
) -> None:
    """It does not stay, and what had the alias keeps it; both versions are named."""
    kept = await import_image(incus, [image_file(tmp_path, "kept", **KEPT)], ALIAS)
    properties = {"pikaci.contract": version} if version else {}
    odd = image_file(tmp_path, "odd", **properties)

    with pytest.raises(WrongContract, match=rf"contract {found};.*version 1"):
        await import_image(incus, [odd], ALIAS)

    assert not await is_there(incus, odd)
    assert kept == (await find_image(incus, ALIAS)).fingerprint


def split_files(base: Path, disk: bytes) -> list[Path]:
    """Metadata and root disk, with names that the client would take for other things."""
    metadata = image_file(base, "split", **KEPT).rename(base / "a=b:")
    path = base / "-disk x.qcow2:"
    path.write_bytes(disk)
    return [metadata, path]


async def test_an_image_in_two_files(incus: Incus, tmp_path: Path) -> None:
    """Metadata and a VM's disk: the type is the disk's, and odd file names do no harm."""
    qcow2 = b"QFI\xfb\0\0\0\3" + bytes(504) + str(os.getpid()).encode()
    fingerprint = await import_image(incus, split_files(tmp_path, qcow2), ALIAS)

    (image,) = [image for image in await list_images(incus) if image.has_alias(ALIAS)]
    assert (fingerprint, "virtual-machine", "1") == (
        image.fingerprint,
        image.type,
        image.contract,
    )
    with pytest.raises(WrongType, match="is of type virtual-machine"):
        await find_image(incus, ALIAS)
    assert fingerprint == (await find_image(incus, ALIAS, InstanceType.VIRTUAL_MACHINE)).fingerprint


@pytest.mark.parametrize("content", [b"", b"junk", bytes(5000)])
async def test_what_is_no_image(incus: Incus, tmp_path: Path, content: bytes) -> None:
    """One line with the file's name and Incus's own reason; nothing stays."""
    file = tmp_path / "odd"
    file.write_bytes(content)

    with pytest.raises(NotAnImage, match=r"odd: not an image that Incus accepts \(.+\)"):
        await import_image(incus, [file], ALIAS)

    assert not await is_there(incus, file)


async def test_a_missing_image_and_a_wrong_contract_say_what_to_type(
    incus: Incus, tmp_path: Path
) -> None:
    """Alias, project, host, both versions, and the command."""
    odd = [image_file(tmp_path, "v9", **{"pikaci.contract": "9"})]
    await import_image(incus, odd, ALIAS, look=lambda image: None)

    with pytest.raises(ImageMissing, match=r"no/such in project pikaci of local") as missing:
        await find_image(incus, "no/such")
    with pytest.raises(WrongContract, match=r"contract 9;.*version 1") as wrong:
        await find_image(incus, ALIAS)

    assert "pikaci image build" in missing.value.resolution
    assert "pikaci image check" in wrong.value.resolution


async def rows_of(incus: Incus, alias: str, *, ready_secs: int = 30, slow: int = 1) -> list[Row]:
    """All rows of a check, by an owner of the test's own."""
    rows: list[Row] = []
    await check_image(
        incus, Host(), alias, tell=rows.append, owner=OWNER, ready_secs=ready_secs, slow=slow
    )
    return rows


async def guests(incus: Incus, tag: str) -> list[str]:
    """The guests with a tag or description, of checks that run or have run."""
    listed = await call(
        incus, "list", "--format", "csv", "-c", "n,user.pikaci.owner,d", deadline_secs=60
    )
    return [line for line in listed.stdout.decode().splitlines() if tag in line]


async def test_our_image_keeps_the_contract(incus: Incus) -> None:
    """Every row; and a guest of it never stays."""
    rows = await rows_of(incus, DEV_IMAGE)

    assert [] == [row for row in rows if not row.kept]
    assert 15 < len(rows)
    assert [] == await guests(incus, OWNER)


async def test_a_slow_host_has_more_time(our_file: Path, incus: Incus) -> None:
    """Of a guest that is ready after three seconds, and of none that has one."""
    init = (guest_files() / "init").read_text().replace("#!/bin/sh", "#!/bin/sh\nsleep 3", 1)
    _append(our_file, "rootfs/usr/sbin/init", f"{init}# {os.getpid()}\n".encode(), 0o755)
    await import_image(incus, [our_file], ALIAS)

    early = await rows_of(incus, ALIAS, ready_secs=1)
    late = await rows_of(incus, ALIAS, ready_secs=1, slow=10)

    assert ["ready within 1 s"] == [row.subject.partition(",")[0] for row in early if not row.kept]
    assert [] == [row for row in late if row.broken]
    assert "ready within 10 s" in [row.subject.partition(",")[0] for row in late]


async def test_an_image_without_a_runner_is_told_by_its_row(our_file: Path, incus: Incus) -> None:
    """It cannot be executed, and the property lies."""
    runner = f"#!/bin/sh\nexit 0 # {os.getpid()}\n".encode()
    _append(our_file, "rootfs/usr/lib/pikaci/pikaci-incus-run", runner, 0o644)
    await import_image(incus, [our_file], ALIAS)

    rows = await rows_of(incus, ALIAS, ready_secs=5)

    broken = [row for row in rows if not row.kept]
    assert 1 == len(broken)
    assert "pikaci-incus-run" in broken[0].subject
    assert "the runner" in broken[0].found


async def test_each_broken_promise_has_its_row(our_file: Path, incus: Incus) -> None:
    """A runner that lets every job write to its tree, sets no variable, a home of root's, no tar."""
    runner = (guest_files() / "pikaci-incus-run").read_text()
    for right, wrong in (
        (" scratch=0 log_bytes", " scratch=1 log_bytes"),
        ("PIKACI_INCUS_SCRATCH=*) scratch=${pair#*=}", "PIKACI_INCUS_SCRATCH=*) scratch=1"),
        ("CARGO_INCREMENTAL=0", "CARGO_INCREMENTAL=1"),
        ("kill -s PWR 1", "true"),
    ):
        assert right in runner
        runner = runner.replace(right, wrong)
    runner += f"# {os.getpid()}\n"
    _append(our_file, "rootfs/usr/lib/pikaci/pikaci-incus-run", runner.encode(), 0o755)
    _append(our_file, "rootfs/home/pikaci", None, 0o755)
    _append(our_file, "rootfs/usr/bin/tar", b"#!/bin/sh\nexit 2\n", 0o755)
    await import_image(incus, [our_file], ALIAS)

    rows = await rows_of(incus, ALIAS, ready_secs=5)

    assert [
        "/home/pikaci of pikaci:users",
        "a job of pikaci has the variables of the contract",
        "a job of pikaci cannot write to the snapshot",
        "a job of root has the variables of the contract",
        "a job of root cannot write to the snapshot",
        "what a job left can be collected",
        "the guest shuts itself down when the runner's lease ends",
    ] == [row.subject for row in rows if not row.kept]


@pytest.fixture(scope="module")
def image_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_slim_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def our_file(image_of_all: Path, tmp_path: Path) -> Path:
    """Our image as a file, to be spoilt."""
    return Path(shutil.copy(image_of_all, tmp_path))


def _append(file: Path, name: str, content: bytes | None, mode: int) -> None:
    with tarfile.open(file, "a") as archive:
        info = tarfile.TarInfo(name)
        info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
        info.size, info.mode = len(content or b""), mode
        archive.addfile(info, io.BytesIO(content or b""))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_check_that_is_told_to_stop_leaves_no_guest(
    checked_alias: str, incus: Incus, number: signal.Signals
) -> None:
    """The guest that it started is gone when it ends."""
    with _check(checked_alias) as check:
        await _line(check, "ready within")
        during = await guests(incus, checked_alias)
        check.send_signal(number)
        ended = await trio.to_thread.run_sync(check.wait)

    assert 1 == len(during)
    assert 130 == ended
    assert [] == await guests(incus, checked_alias)


async def test_a_check_whose_reader_has_gone_leaves_no_guest(
    checked_alias: str, incus: Incus
) -> None:
    """As with `| head -1`: it ends as a program killed by the pipe, and says nothing."""
    with _check(checked_alias) as check:
        assert check.stdout is not None
        assert check.stderr is not None
        check.stdout.close()
        ended = await trio.to_thread.run_sync(check.wait)
        said = check.stderr.read()

    assert (141, "") == (ended, said)
    assert [] == await guests(incus, checked_alias)


async def test_what_a_killed_check_left_goes_with_the_next(incus: Incus) -> None:
    """When its time is over; a check that may still run is left alone."""
    for name, deadline in (("old", "2020-01-01T00:00:00Z"), ("young", "2222-01-01T00:00:00Z")):
        tags = {"user.pikaci.owner": OWNER, "user.pikaci.deadline": deadline}
        root = {"root": {"type": "disk", "path": "/", "pool": Host().pool}}
        document = msgspec.json.encode({"config": tags, "devices": root})
        made = ("--no-profiles", incus.name(DEV_IMAGE), incus.name(f"{OWNER}-{name}"))
        await call(incus, "create", "--quiet", *made, stdin=document, deadline_secs=60)
    try:
        with trio.CancelScope() as check:  # the first row comes when it has looked for them
            await check_image(
                incus, Host(), DEV_IMAGE, tell=lambda row: check.cancel(), owner=OWNER
            )
        left = await guests(incus, OWNER)
    finally:
        for name in ("old", "young"):
            with suppress(InstanceNotFound):
                await call(incus, "delete", "-f", incus.name(f"{OWNER}-{name}"), deadline_secs=60)

    assert [f"{OWNER}-young"] == [line.partition(",")[0] for line in left]


@pytest.fixture
async def checked_alias(incus: Incus) -> AsyncIterator[str]:
    """Another name of our image, by which the guests of one test are known."""
    alias = f"test/check-{os.getpid()}"
    image = next(i for i in await list_images(incus) if i.has_alias(DEV_IMAGE))
    create = ("image", "alias", "create", incus.name(alias), image.fingerprint)
    await call(incus, *create, deadline_secs=60)
    yield alias
    await call(incus, "image", "alias", "delete", incus.name(alias), deadline_secs=60)


def _check(alias: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("pikaci")), "image", "check", alias],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def _line(check: subprocess.Popen[str], words: str) -> None:
    assert check.stdout is not None
    with trio.fail_after(60):
        while words not in (line := await trio.to_thread.run_sync(check.stdout.readline)):
            assert line


@pytest.mark.xdist_group("image build")
async def test_a_second_setup_makes_nothing(incus: Incus) -> None:
    """The first makes what is missing, and the second says nothing and changes nothing.

    In a project of the test's own: another checkout's image may be in use in the shared one.
    """
    host = Host(project=f"test-setup-{os.getpid()}")
    own = Incus(incus.conf, project=host.project)
    first: list[str] = []
    second: list[str] = []
    try:
        assert await setup(own, host, say=first.append)
        made = [image.fingerprint for image in await list_images(own)]
        assert not await setup(own, host, say=second.append)

        assert f"creating the project {host.project}" == first[0]
        assert [] == second
        assert made == [image.fingerprint for image in await list_images(own)]
    finally:
        delete = ("project", "delete", "--force", own.name(host.project))
        await call(own, *delete, stdin=b"yes\n", deadline_secs=120, in_project=False)
