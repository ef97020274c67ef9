"""The client of the commands, on a service over the fake Incus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from orchestrator import JobSpec
from orchestrator.service import client as client_module
from orchestrator.service import limits
from orchestrator.service.client import Client, ServiceGone, ServiceProblem, open_client
from orchestrator.service.types import Cancel, SubmitRun
from states import events as ev
from tests.service.served import Served, open_served


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the tests advances for each."""
    monkeypatch.setattr(client_module, "AGAIN_SECS", 20.0)
    monkeypatch.setattr(client_module, "MOST_AGAIN_SECS", 20.0)


class Followed:
    """What a client sees of one job, until its end."""

    def __init__(self, client: Client, job: str) -> None:
        self._client = client
        self._job = job
        self.entries: list[ev.Entry] = []
        self.log = b""

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_entries)
            nursery.start_soon(self._read_log)

    async def _read_entries(self) -> None:
        async for entry in self._client.entries(self._job):
            self.entries.append(entry)

    async def _read_log(self) -> None:
        async for piece in self._client.log(self._job):
            self.log += piece.data

    def check(self, served: Served) -> None:
        """Each entry and each byte came once, in order."""
        handle = served.orchestrator.job(self._job)
        assert [entry for _, entry in served.orchestrator.journal.entries(self._job)][
            : len(self.entries)
        ] == self.entries
        assert any(isinstance(entry, ev.ResultCollected) for entry in self.entries)
        assert (handle.directory / "guest.log").read_bytes() == self.log


async def test_a_stream_that_finds_the_service_busy_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events and log are complete, though only one stream is allowed at a time."""
    async with open_served() as served:
        job = (await served.submit("echo one; sleep 0.2; echo two"))["id"]
        monkeypatch.setattr(limits, "MAX_STREAMS", 1)
        async with open_client(served.socket) as client:
            followed = Followed(client, job)
            await followed.run()
        followed.check(served)

    assert [b"one", b"two"] == followed.log.splitlines()[1:]


async def test_a_stream_of_no_job_is_refused_at_once() -> None:
    """Errors that a retry cannot cure are not retried."""
    async with open_served() as served, open_client(served.socket) as client:
        with pytest.raises(ServiceProblem, match="no job"):
            async for _ in client.entries("none.1"):
                pass


async def test_a_silent_job_is_followed_to_its_end(autojump_clock: MockClock) -> None:
    """Keep-alive comments are enough, however long it takes."""
    async with open_served() as served:
        job = (await served.submit("sleep 300; echo two"))["id"]
        async with open_client(served.socket) as client:
            followed = Followed(client, job)
            await followed.run()
        followed.check(served)


async def test_a_restart_is_survived_after_a_long_silence(
    autojump_clock: MockClock, few_tries: None
) -> None:
    """The clock starts at the first missing answer, again after each restart."""
    async with open_served() as served:
        job = (await served.submit("sleep 400; echo two"))["id"]
        async with open_client(served.socket) as client, trio.open_nursery() as nursery:
            followed = Followed(client, job)
            nursery.start_soon(followed.run)
            for _ in range(2):
                await trio.sleep(90)
                await served.restart(away_secs=client_module.AWAY_SECS - 30)
        followed.check(served)


async def test_a_service_that_stays_away_is_told_of(
    autojump_clock: MockClock, few_tries: None
) -> None:
    """After the deadline, and it says what to do."""
    async with open_served() as served:
        job = (await served.submit("sleep 100000"))["id"]
        async with open_client(served.socket) as client:
            begun = trio.current_time()
            with pytest.raises(ServiceGone, match="does not answer") as caught:
                async for _ in client.entries(job):
                    served.serving.cancel()
            took = trio.current_time() - begun

    assert "pikaci resume" in caught.value.resolution
    assert client_module.AWAY_SECS <= took < 2 * client_module.AWAY_SECS


async def test_a_stream_that_stays_refused_is_told_of(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the error of the service, and as soon as a submission."""
    async with open_served() as served:
        job = (await served.submit("sleep 100000"))["id"]
        monkeypatch.setattr(limits, "MAX_STREAMS", 0)
        async with open_client(served.socket) as client:
            begun = trio.current_time()
            with pytest.raises(ServiceProblem, match="0 streams") as caught:
                async for _ in client.log(job):
                    pass
            took = trio.current_time() - begun

    assert client_module.BUSY == caught.value.status
    assert client_module.BUSY_SECS <= took < 2 * client_module.BUSY_SECS


async def test_a_stream_that_is_refused_now_and_then_is_followed_to_its_end(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A success resets the clock for busy answers."""
    async with open_served() as served:
        job = (await served.submit("sleep 400; echo two"))["id"]
        async with open_client(served.socket) as client, trio.open_nursery() as nursery:
            followed = Followed(client, job)
            nursery.start_soon(followed.run)
            for _ in range(4):
                await trio.sleep(60)
                with monkeypatch.context() as patch:
                    patch.setattr(limits, "MAX_STREAMS", 0)
                    await served.restart(away_secs=0)
                    await trio.sleep(client_module.BUSY_SECS * 0.8)
        followed.check(served)


async def test_a_service_that_hangs_is_told_of(autojump_clock: MockClock, tmp_path: Path) -> None:
    """A service that accepts connections but sends nothing counts as silent."""
    async with silent(tmp_path / "sock") as path, open_client(path) as client:
        with pytest.raises(ServiceGone):
            async for _ in client.entries("a.1"):
                pass


@asynccontextmanager
async def silent(path: Path) -> AsyncIterator[Path]:
    with trio.socket.socket(trio.socket.AF_UNIX) as door:
        await door.bind(str(path))
        door.listen()
        yield path


async def test_what_a_job_prints_breaks_no_event() -> None:
    """File names and logs may contain other line breaks."""
    breaks = "true # a\u2028b\u2029c\x85d"
    async with open_served() as served:
        job = (await served.submit(breaks))["id"]
        async with open_client(served.socket) as client:
            first = await anext(client.entries(job))

    assert isinstance(first, ev.Submitted)
    assert breaks == first.spec.command


async def test_the_log_of_every_attempt_is_followed_in_turn() -> None:
    """From the last position, also if another attempt has begun meanwhile."""
    async with open_served() as served:
        job = (await served.submit("echo two"))["id"]
        handle = served.orchestrator.job(job)
        await handle.wait()
        await served.settled(job)
        first = handle.directory.with_name("attempt-0")
        first.mkdir()
        (first / "guest.log").write_bytes(b"one\nmore\n")
        path = f"/v1/jobs/{job}/log/events"
        whole = await served.http.get(path, headers={"Last-Event-ID": "0.4"})
        over = await served.http.get(
            path, headers={"Last-Event-ID": whole.text.split("id: ")[-1].split("\n")[0]}
        )
        bad = [
            (await served.http.get(path, headers={"Last-Event-ID": place})).status_code
            for place in ("x", "1", "1.-1", "1." + "9" * 30, "1.2.3")
        ]

    assert "id: 0.9\nevent: log\ndata: bW9yZQo=\n\n" == whole.text[: whole.text.index("id: 1.")]
    assert (204, b"") == (over.status_code, over.content)
    assert [400] * 5 == bad


class Cutting:
    """A proxy that loses the answers to the first requests."""

    def __init__(self, to: Path, lost: int) -> None:
        self._to = to
        self.lost = lost

    async def handle(self, near: trio.SocketStream) -> None:
        async with (
            near,
            await trio.open_unix_socket(str(self._to)) as far,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._copy, near, far, nursery)
            answer = await far.receive_some()
            if self.lost:
                self.lost -= 1
            else:
                while answer:
                    await near.send_all(answer)
                    answer = await far.receive_some()
            nursery.cancel_scope.cancel()

    async def _copy(
        self, near: trio.SocketStream, far: trio.SocketStream, nursery: trio.Nursery
    ) -> None:
        while data := await near.receive_some():
            await far.send_all(data)
        nursery.cancel_scope.cancel()


async def test_a_lost_answer_costs_no_second_run(tmp_path: Path) -> None:
    """The submission is repeated with its key, and so is a cancellation."""
    async with open_served() as served:
        cutting = Cutting(served.socket, lost=2)
        with trio.socket.socket(trio.socket.AF_UNIX) as door:
            await door.bind(str(tmp_path / "sock"))
            door.listen()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    trio.serve_listeners, cutting.handle, [trio.SocketListener(door)]
                )
                async with open_client(tmp_path / "sock") as client:
                    asked = SubmitRun(
                        workspace=served.workspace, jobs={"a": JobSpec(command="sleep 10000")}
                    )
                    run = await client.submit(asked, key="a")
                    cutting.lost = 1
                    ended = await client.cancel(run.jobs[0].id, Cancel(now=True))
                nursery.cancel_scope.cancel()
        rows = served.orchestrator.journal.jobs()

    assert [run.jobs[0].id] == [row.id for row in rows]
    assert "cancelled" == ended.verdict


async def test_a_submission_that_cannot_be_taken_now_is_sent_again(
    autojump_clock: MockClock,
) -> None:
    """Incus is down for a while, and nothing was started."""
    async with open_served() as served, open_client(served.socket) as client:
        asked = SubmitRun(workspace=served.workspace, jobs={"a": JobSpec(command="true")})
        served.fake.kill_daemon()

        async def come_back() -> None:
            await trio.sleep(client_module.BUSY_SECS / 2)
            served.fake.restart_daemon()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            run = await client.submit(asked, key="a")

        assert 1 == len(run.jobs)
