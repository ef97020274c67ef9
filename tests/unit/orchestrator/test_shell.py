"""What `pikaci shell`, `kept` and `release` do without a guest to enter."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from orchestrator.attempt import shell
from orchestrator.errors import UsageError
from orchestrator.incus.terminal import run_on_terminal
from orchestrator.journal import open_journal
from orchestrator.session.shell import entrance
from orchestrator.state_root import StateRoot
from states import events as ev
from tests import forks
from tests.samples import PATH, sample_event, sample_life

LATER = datetime.now(UTC) + timedelta(hours=1)
RUNNING = PATH[: PATH.index(ev.Running) + 1]


def lease(*, kept: datetime | None = None) -> list[Any]:
    """Notes of the lease of the guest of `sample_life`."""
    configured = sample_event(ev.DevicesConfigured, 3)
    about: dict[str, Any] = {
        "job": configured.job,
        "at": datetime.now(UTC),
        "monotonic": 1.0,
        "instance": configured.instance,
    }
    opened = ev.LeaseOpened(deadline=LATER, host="far", **about)
    return [opened, *([ev.LeaseKept(deadline=kept, **about)] if kept else [])]


@pytest.fixture
def root(tmp_path: Path) -> StateRoot:
    made = StateRoot(tmp_path / "root")
    made.make()
    return made


async def test_a_running_job_is_entered_where_its_guest_is(root: StateRoot) -> None:
    with open_journal(root.journal) as journal:
        await journal.append(*sample_life(*RUNNING))
        await journal.append(*lease())

        way = entrance(journal, "r.1")

    assert ("far", False) == (way.lease.host, way.lease.kept)


async def test_a_job_whose_command_does_not_run_yet_has_no_shell(root: StateRoot) -> None:
    with open_journal(root.journal) as journal:
        await journal.append(*sample_life(*RUNNING[:-1]))
        await journal.append(*lease())

        with pytest.raises(UsageError, match="r.1 is not running: it is ready") as refused:
            entrance(journal, "r.1")

    assert "pikaci status r.1" in refused.value.resolution


@pytest.mark.parametrize("kept", [None, datetime(2020, 1, 1, tzinfo=UTC)])
async def test_a_job_that_has_ended_needs_a_kept_guest(
    root: StateRoot, kept: datetime | None
) -> None:
    """One whose time is over is none: it is about to be deleted."""
    with open_journal(root.journal) as journal:
        await journal.append(*sample_life())
        await journal.append(*lease(kept=kept))

        with pytest.raises(UsageError, match="its guest was not kept") as refused:
            entrance(journal, "r.1")
        assert [] == journal.kept_leases()

        await journal.append(*lease(kept=LATER)[1:])
        assert entrance(journal, "r.1").lease.kept

    assert "--keep-on-failure" in refused.value.resolution


def pikaci(root: StateRoot, *args: str) -> Any:
    env = {**os.environ, "PIKACI_STATE_ROOT": str(root.path)}
    return forks.run(args, cwd=root.path.parent, env=env, text=True)


def test_a_shell_needs_a_terminal(root: StateRoot) -> None:
    refused = pikaci(root, "shell")

    assert 2 == refused.returncode
    assert "needs a terminal" in refused.stderr


def test_the_commands_list_and_refuse_by_the_journal(root: StateRoot) -> None:
    """A guest on another host is named with it; a job without one is refused."""

    async def write() -> None:
        with open_journal(root.journal) as journal:
            await journal.append(*sample_life())
            await journal.append(*lease(kept=LATER))

    empty = pikaci(root, "kept")
    trio.run(write)
    listed = pikaci(root, "kept", "--output", "jsonl")
    guest = msgspec.json.decode(listed.stdout)

    assert 2 == empty.returncode
    assert ("r.1", "far") == (guest["job"], guest["host"])
    assert pikaci(root, "kept").stdout.endswith("on far\n")
    assert 2 == pikaci(root, "release").returncode
    assert 2 == pikaci(root, "release", "--all", "r.1").returncode
    nobody = pikaci(root, "release", "nobody")
    assert (2, True) == (nobody.returncode, "there is no job or run" in nobody.stderr)


def test_no_secret_is_in_a_shells_command() -> None:
    """Arguments can be read by anybody: variables come on stdin, each ended by a NUL."""
    data = shell.variables({"TOKEN": "s3cret", "HOME": "/mine"}, run_as_root=False)
    pairs = data.decode().removesuffix("\0").split("\0")

    assert {"TOKEN=s3cret", "HOME=/mine", "USER=pikaci"} <= set(pairs)
    assert "HOME=/home/pikaci" not in pairs
    assert b"USER=root\0" in shell.variables({}, run_as_root=True)


@pytest.mark.parametrize("way", ["code", "cancel", "ignored"])
async def test_the_terminal_is_handed_over_and_comes_back(way: str) -> None:
    """The process's own exit code; a cancellation ends it, whatever it does about TERM."""
    env = {"PATH": os.environ["PATH"]}
    if way == "code":
        assert 7 == await run_on_terminal(["sh", "-c", "exit 7"], env=env)
        return
    ignore = "trap '' TERM; " if way == "ignored" else ""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    script = f"{ignore}echo $$ >/proc/{os.getpid()}/fd/{write}; exec sleep 1000"
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await run_on_terminal(["sh", "-c", script], env=env)

        nursery.start_soon(run)
        pid = int(await trio.to_thread.run_sync(os.read, read, 100))
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    os.close(write)
