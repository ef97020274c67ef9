"""What a restricted project of a host over TLS refuses, and that jobs ask for none of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.incus.errors import IncusError, RestrictedProject, VolumeNotFound
from tests.calls import call
from tests.integration.private_daemon import IMAGE, POOL
from tests.integration.tls_host import REMOTE, TlsHost

pytestmark = pytest.mark.incus

ROOT = {"type": "disk", "path": "/", "pool": POOL, "size": "1GiB"}
OURS = {
    "boot.autostart": "false",
    "limits.cpu": "1",
    "limits.memory": "1GiB",
    "limits.processes": "1000",
    "security.idmap.isolated": "true",
    "security.syscalls.deny": "keyctl errno 38\nsocket errno 97 [0,40,SCMP_CMP_MASKED_EQ,0xffffffff]",
    "user.pikaci.owner": "test",
}
DIRECTORY = {"type": "disk", "source": "/etc", "path": "/mnt/etc", "readonly": "true"}
PROXY = {
    "type": "proxy",
    "bind": "instance",
    "listen": "tcp:127.0.0.1:1",
    "connect": "tcp:127.0.0.1:1",
}


async def create(far: TlsHost, conf: Path, *, config: dict[str, str], **devices: object) -> None:
    incus = await far.reached(conf)
    document = {"config": config, "devices": {"root": ROOT, **devices}}
    names = (f"{REMOTE}:{IMAGE}", incus.name("restricted"))
    stdin = json.dumps(document).encode()
    await call(incus, "create", "--quiet", "--no-profiles", *names, stdin=stdin)


async def test_it_takes_what_jobs_ask_for(far: TlsHost, tmp_path: Path) -> None:
    await create(far, tmp_path, config=OURS)

    assert ["restricted"] == far.daemon.instances()


@pytest.mark.parametrize(
    ("config", "device", "words"),
    [
        ({}, DIRECTORY, "Attaching disks not backed by a pool is forbidden"),
        ({}, {**DIRECTORY, "shift": "true"}, "Attaching disks not backed by a pool is forbidden"),
        ({}, PROXY, "Proxy devices are forbidden"),
        ({"security.idmap.base": "2000000"}, None, '"security.idmap.base" on container'),
        ({"security.idmap.size": "262144"}, None, '"security.idmap.size" on container'),
        ({"raw.lxc": "lxc.log.level = 1"}, None, '"raw.lxc" on container'),
        ({"security.privileged": "true"}, None, "Privileged containers are forbidden"),
        ({"security.nesting": "true"}, None, "Container nesting is forbidden"),
    ],
)
async def test_it_refuses(
    far: TlsHost, tmp_path: Path, config: dict[str, str], device: dict[str, str] | None, words: str
) -> None:
    """Each is known by its type, and the daemon's own words say what it was."""
    devices = {} if device is None else {"one": device}

    with pytest.raises(RestrictedProject) as refused:
        await create(far, tmp_path, config=config, **devices)

    assert words in refused.value.details
    assert [] == far.daemon.instances()


async def test_a_volume_cannot_be_shifted_by_its_device(far: TlsHost, tmp_path: Path) -> None:
    far.daemon.incus("storage", "volume", "create", POOL, "one", "--project", far.project)
    device = {"type": "disk", "pool": POOL, "source": "one", "path": "/mnt/one", "shift": "true"}

    with pytest.raises(IncusError, match='set "security.shifted=true" on the volume'):
        await create(far, tmp_path, config={}, one=device)


async def test_a_volume_that_is_missing_is_known_by_its_type(far: TlsHost, tmp_path: Path) -> None:
    """A job is then tried again, and its trees are delivered again."""
    device = {"type": "disk", "pool": POOL, "source": "none/tree", "path": "/mnt/one"}

    with pytest.raises(VolumeNotFound) as missing:
        await create(far, tmp_path, config={}, one=device)

    assert missing.value.retryable
