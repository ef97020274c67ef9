"""Who reaches a service: its socket, its token, its addresses."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import httpx
import pytest
import trio
from starlette.responses import PlainTextResponse
from trio.testing import MockClock

from orchestrator import UsageError
from orchestrator.service import token_file
from orchestrator.service.app import make_app
from orchestrator.service.server import tcp_socket, unix_socket
from orchestrator.service.serving import page_url
from orchestrator.service.token import RequireToken
from orchestrator.service.token_file import LOOK_SECS, follow_tokens, read_tokens
from tests.service.answers import problem
from tests.service.served import open_served


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8080"}, 200),
        ({"Host": "[::1]:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Host": "LocalHost.:8080"}, 200),
        ({"Host": ""}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:8080"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_page_of_somebody_else_gets_nothing(headers: dict[str, str], status: int) -> None:
    """Whatever name it uses for a socket that was forwarded to a port."""
    async with open_served() as served:
        assert status == (await served.http.get("/v1/jobs", headers=headers)).status_code


async def test_on_tcp_nothing_is_told_without_the_token() -> None:
    """Except that the service is alive."""
    async with open_served() as served:
        app = RequireToken(make_app(served.orchestrator), "t" * 16)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://pikaci"
        ) as http:
            for given in ("", "Bearer wrong", "t" * 16):
                answer = await http.get("/v1/jobs", headers={"Authorization": given})
                await problem(answer, 401)
                assert "Bearer" == answer.headers["www-authenticate"]
            for scheme in ("Bearer", "bearer", "BEARER "):
                given = {"Authorization": f"{scheme} {'t' * 16}"}
                assert 200 == (await http.get("/v1/jobs", headers=given)).status_code
            assert 200 == (await http.get("/healthz")).status_code


def test_the_socket_is_its_user_s_alone(tmp_path: Path) -> None:
    """From the start; the socket of a dead service is replaced, another file is not."""
    path = tmp_path / ("long" * 20) / ("er" * 20) / "service.sock"
    path.parent.mkdir(parents=True)
    old = os.umask(0)
    try:
        with unix_socket(path) as first:
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)
            first.close()
            with unix_socket(path):
                assert path.is_socket()
    finally:
        os.umask(old)
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(UsageError, match="is not a socket"), unix_socket(path):
        pass
    assert "mine" == path.read_text()


def test_the_socket_of_a_living_service_stays(tmp_path: Path) -> None:
    """Also if two state roots use the same path; each service removes only its own socket."""
    path = tmp_path / "service.sock"
    with unix_socket(path):
        with pytest.raises(UsageError, match="another service listens"), unix_socket(path):
            pass
        assert path.is_socket()
        path.unlink()
        path.write_text("somebody else's")
    assert "somebody else's" == path.read_text()


@pytest.mark.parametrize("path", ["no/such/directory", "file/sock", "x" * 300, "directory"])
def test_a_path_that_can_be_no_socket_is_said_so(path: str, tmp_path: Path) -> None:
    """In one line."""
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError, match="socket"), unix_socket(tmp_path / path):
        pass


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("a" * 16, 0o644, "can be read by others"),
        ("short", 0o600, "no token of at least 16"),
        ("with a space and more", 0o600, "no token of at least 16"),
        (None, 0o600, "cannot be read"),
        ("a" * 16 + "\nshort", 0o600, "no token of at least 16"),
        ("\n \n", 0o600, "no token of at least 16"),
        ("a" * 16 + "\n" + "b" * 16 + "\n" + "c" * 16, 0o600, "has 3 tokens"),
    ],
)
def test_a_token_is_secret_and_long(
    tmp_path: Path, text: str | None, mode: int, words: str
) -> None:
    """Or nothing listens."""
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(UsageError, match=words):
        read_tokens(path)


@pytest.mark.parametrize(("mode", "taken"), [(0o400, True), (0o440, True), (0o444, False)])
def test_a_token_may_be_a_credential_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, taken: bool
) -> None:
    """Its access list looks like group permissions; permissions for others are refused."""
    path = tmp_path / "token"
    path.write_text("0123456789abcdef\n")
    path.chmod(mode)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    if taken:
        assert ("0123456789abcdef",) == read_tokens(path)
    else:
        with pytest.raises(UsageError, match="read by others"):
            read_tokens(path)


def test_a_token_has_nothing_that_an_editor_adds(tmp_path: Path) -> None:
    """As with a secret's file."""
    path = tmp_path / "token"
    path.write_bytes(b"\xef\xbb\xbf0123456789abcdef\r\n")
    path.chmod(0o600)

    assert ("0123456789abcdef",) == read_tokens(path)


async def test_tokens_are_replaced_while_the_service_runs(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Old and new are both valid as long as both are in the file; a bad file changes nothing."""
    old, new = "o" * 16, "n" * 16
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(old)
    app = RequireToken(PlainTextResponse("in"), old)

    async def answers() -> tuple[int, int]:
        await trio.sleep(2 * LOOK_SECS)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://pikaci"
        ) as http:
            one, two = [
                (
                    await http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})
                ).status_code
                for token in (old, new)
            ]
            return one, two

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_tokens, path, (old,), app.accept)
        assert (200, 401) == await answers()
        path.write_text(f"{old}\n{new}\n")
        assert (200, 200) == await answers()
        path.write_text(new)
        assert (401, 200) == await answers()
        path.write_text("short")
        assert (401, 200) == await answers()
        await trio.sleep(10 * LOOK_SECS)
        path.unlink()
        assert (401, 200) == await answers()
        nursery.cancel_scope.cancel()
    kept = [one.message for one in caplog.records if "stay as they were" in one.message]
    assert ["no token" in kept[0], "cannot be read" in kept[1]] == [True] * len(kept)


async def test_a_token_file_that_became_a_pipe_holds_nothing_up(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody writes to it. Once it is a file again, that counts."""
    path = tmp_path / "token"
    os.mkfifo(path, 0o600)
    accepted: list[tuple[str, ...]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_tokens, path, ("o" * 16,), accepted.append)
        while "no longer a regular file" not in caplog.text:
            await trio.sleep(LOOK_SECS)
        path.unlink()
        path.touch(0o600)
        path.write_text("n" * 16)
        while not accepted:
            await trio.sleep(LOOK_SECS)
        nursery.cancel_scope.cancel()

    assert [("n" * 16,)] == accepted


async def test_a_token_file_that_cannot_be_read_to_its_end_holds_no_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a network file system whose server is down."""
    monkeypatch.setattr(token_file, "LOOK_SECS", 0.0)
    reading, never = threading.Event(), threading.Event()
    waited_out: list[bool] = []

    def read(path: Path) -> tuple[str, ...]:
        reading.set()
        waited_out.append(never.wait(10))
        return ()

    monkeypatch.setattr(token_file, "read_tokens", read)
    path = tmp_path / "token"
    path.touch()
    accepted: list[tuple[str, ...]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_tokens, path, ("o" * 16,), accepted.append)
        await trio.to_thread.run_sync(reading.wait)
        nursery.cancel_scope.cancel()
    ended_later = list(waited_out)
    never.set()

    assert [] == ended_later
    assert [] == accepted


async def test_a_cookie_is_valid_as_long_as_its_token() -> None:
    """Who logged in with the old token stays so while both are valid, and no longer."""
    old, new = "o" * 16, "n" * 16
    app = RequireToken(PlainTextResponse("in"), old)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://pikaci"
    ) as http:
        form = {"token": old, "next": "/"}
        await http.post("/login", data=form, headers={"Origin": "http://pikaci"})
        seen = []
        for tokens in ((old,), (old, new), (new,)):
            app.accept(tokens)
            seen.append((await http.get("/")).status_code)

    assert [200, 200, 401] == seen


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:0", "http://127.0.0.1:"),
        ("0.0.0.0:0", "http://127.0.0.1:"),
        ("[::1]:0", "http://[::1]:"),
        ("[::]:0", "http://[::1]:"),
    ],
)
def test_the_page_has_an_address_to_open(listen: str, url: str) -> None:
    with tcp_socket(listen) as listener:
        assert f"{url}{listener.getsockname()[1]}/" == page_url(listener)


@pytest.mark.parametrize("listen", ["localhost:80", "127.0.0.1", "127.0.0.1:x", "1.2.3.4:1", ":1"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    """Also host names: only an address says where it listens."""
    with pytest.raises(UsageError, match="--listen"), tcp_socket(listen):
        pass
