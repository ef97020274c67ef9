"""Hosts over TLS are added by a token, and each thing that can be wrong has words of its own."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio

from orchestrator.hosts.remote_check import look_at_remote
from orchestrator.hosts.trust import add_remote, read_token, remove_remote
from orchestrator.incus import Completed, Incus, spawn_process
from orchestrator.incus.errors import (
    CertificateChanged,
    DaemonUnreachable,
    IncusError,
    NotTrusted,
    PoolNotFound,
    ProjectForbidden,
    RemoteMissing,
    RestrictedProject,
    TokenRefused,
)
from states.errors import PikaciError
from tests.integration.tls_host import REMOTE, TlsHost

pytestmark = pytest.mark.incus


def changed(token: str, **keys: object) -> str:
    """A token that says something else."""
    said = json.loads(base64.b64decode(token.split()[-1]))
    return base64.b64encode(json.dumps({**said, **keys}).encode()).decode()


@pytest.fixture
def incus(far: TlsHost, tmp_path: Path) -> Incus:
    return Incus(tmp_path / "conf", project=far.project, remote=REMOTE)


@pytest.fixture
def add(incus: Incus) -> Callable[..., Awaitable[list[str]]]:
    """Add the remote by a token; what was said."""

    async def add(token: str, **options: str) -> list[str]:
        said: list[str] = []
        await add_remote(incus, read_token(token), say=said.append, **options)
        return said

    return add


Add = Callable[..., Awaitable[list[str]]]


async def test_a_token_is_enough(far: TlsHost, incus: Incus, add: Add) -> None:
    """Nothing is asked; the fingerprint that the user can compare is shown."""
    token = far.token()

    said = await add(token)
    look = await look_at_remote(incus, far.pool)

    assert [f"its certificate is the token's: {read_token(token).fingerprint}"] == said
    assert read_token(token).fingerprint == look.fingerprint
    assert ("btrfs", True, False, ()) == (
        look.driver,
        look.restricted,
        look.clustered,
        look.warnings,
    )


async def test_the_secret_is_in_no_process_list(far: TlsHost, incus: Incus) -> None:
    token = read_token(far.token())
    seen: list[str] = []

    async def spawn(argv: Sequence[str], **options: object) -> Completed:
        seen.extend((*argv, str(options["env"])))
        return await spawn_process(argv, **options)  # type: ignore[arg-type]

    watched = Incus(incus.conf, project=far.project, remote=REMOTE, spawn=spawn)
    await add_remote(watched, token, say=seen.append)

    assert seen
    assert [] == [text for text in seen if token.text in text or token.secret in text]
    assert token.secret not in repr(token)


async def test_a_token_is_good_once(far: TlsHost, tmp_path: Path, add: Add) -> None:
    token = far.token()
    await add(token)
    other = Incus(tmp_path / "other", project=far.project, remote=REMOTE)

    with pytest.raises(TokenRefused) as refused:
        await add_remote(other, read_token(token), say=lambda line: None)

    assert "make another there" in refused.value.resolution


async def test_the_same_name_twice_is_told(far: TlsHost, add: Add) -> None:
    await add(far.token())

    with pytest.raises(IncusError, match=f"Remote {REMOTE} exists"):
        await add(far.token())


async def test_another_name_for_a_host_that_trusts_us_works(
    far: TlsHost, incus: Incus, add: Add
) -> None:
    await add(far.token())
    other = Incus(incus.conf, project=far.project, remote="other")

    await add_remote(other, read_token(far.token()), say=lambda line: None)

    assert far.pool
    assert "btrfs" == (await look_at_remote(other, far.pool)).driver


@pytest.mark.parametrize("known", [False, True], ids=["first", "stored"])
async def test_a_certificate_with_another_fingerprint_is_refused(
    far: TlsHost, incus: Incus, add: Add, known: bool
) -> None:
    """Also where the incus command has the certificate already, and does not ask; nothing is kept."""
    if known:
        await add(far.token())
        stored = (incus.conf / "servercerts" / f"{REMOTE}.crt").read_bytes()
        await remove_remote(incus)
        (incus.conf / "servercerts" / f"{REMOTE}.crt").write_bytes(stored)

    with pytest.raises(CertificateChanged, match="another fingerprint than the token's"):
        await add(changed(far.token(), fingerprint="0" * 64))
    with pytest.raises(RemoteMissing):
        await look_at_remote(incus, far.pool)


async def test_addresses_are_tried_in_turn(far: TlsHost, incus: Incus, add: Add) -> None:
    gone = "127.0.0.1:1"

    await add(changed(far.token(), addresses=[gone, far.address]))

    assert (await look_at_remote(incus, far.pool)).restricted


async def test_no_address_that_answers(far: TlsHost, add: Add) -> None:
    token = changed(far.token(), addresses=["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:8443"])

    with pytest.raises(DaemonUnreachable) as away:
        await add(token)
    await add(token, address=far.address)

    assert "127.0.0.1:1, [::1]:1, no-such-host.invalid:8443" in away.value.brief
    assert 3 == len((away.value.details or "").splitlines())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "this is not a token"),
        ("https://build:8443", "this is not a token"),
        ("eyJhIjogMX0=", "this is not a token"),
        ("\N{SNOWMAN}", "this is not a token"),
        (
            changed(
                "e30=",
                client_name="x",
                fingerprint="no",
                addresses=[],
                secret="s",
                expires_at="0001-01-01T00:00:00Z",
            ),
            "no fingerprint",
        ),
        (
            changed(
                "e30=",
                client_name="x",
                fingerprint="0" * 64,
                addresses=[],
                secret="s",
                expires_at="2020-01-01T00:00:00Z",
            ),
            "expired at 2020",
        ),
    ],
)
def test_what_is_no_token_is_told_before_anything_is_asked(text: str, words: str) -> None:
    with pytest.raises(PikaciError, match=words) as bad:
        read_token(text)

    assert "incus config trust add" in bad.value.resolution


async def test_each_thing_that_is_wrong_has_its_words(
    far: TlsHost, incus: Incus, add: Add, tmp_path: Path
) -> None:
    await add(far.token())

    async def wrong(kind: type[PikaciError], incus: Incus = incus, pool: str = far.pool) -> str:
        with pytest.raises(kind) as error:
            await look_at_remote(incus, pool)
        return f"{error.value.brief} | {error.value.resolution}"

    assert "Storage pool not found" in await wrong(PoolNotFound, pool="nope")
    elsewhere = Incus(incus.conf, project="nope", remote=REMOTE)
    assert "incus config trust" in await wrong(ProjectForbidden, elsewhere)
    far.daemon.incus("project", "set", far.project, "restricted.devices.disk=block")
    assert "restricted.devices.disk=managed" in await wrong(RestrictedProject)
    far.daemon.incus("project", "unset", far.project, "restricted.devices.disk")

    # The host was reinstalled; it is away; it forgot us.
    certificate = incus.conf / "servercerts" / f"{REMOTE}.crt"
    kept = certificate.read_bytes()
    request = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x")
    files = ("-keyout", "/dev/null", "-out", str(certificate))
    subprocess.run([*request, *files], check=True, capture_output=True)
    assert "pikaci host remove" in await wrong(CertificateChanged)
    certificate.write_bytes(kept)
    config = incus.conf / "config.yml"
    right = config.read_text()
    config.write_text(right.replace(far.address, "127.0.0.1:1"))
    assert "connection refused" in await wrong(DaemonUnreachable)
    config.write_text(right)
    for line in far.daemon.incus("config", "trust", "list", "-f", "csv", "-c", "f").split():
        far.daemon.incus("config", "trust", "remove", line)
    assert "make a token there" in await wrong(NotTrusted)


async def test_a_project_that_is_not_restricted_is_as_good_as_root_there(
    far: TlsHost, incus: Incus, add: Add
) -> None:
    await add(far.token())
    far.restrict("false")

    look = await look_at_remote(incus, far.pool)

    assert not look.restricted
    (warning,) = look.warnings
    assert str(incus.conf / "client.key") in warning
    assert "read and write every file on that host" in warning
    assert f"incus project set {far.project} restricted=true" in warning


async def test_a_cancelled_add_leaves_no_remote_that_does_not_work(
    far: TlsHost, incus: Incus, add: Add
) -> None:
    for secs in (0.0, 0.05, 0.1, 0.2):
        with trio.move_on_after(secs):
            await add(far.token())
        try:
            await look_at_remote(incus, far.pool)
        except RemoteMissing:
            continue
        await remove_remote(incus)
