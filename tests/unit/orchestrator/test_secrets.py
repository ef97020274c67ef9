"""Secrets: read when they are used, passed over stdin, and nowhere else to be found."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import make_plan, nonce
from orchestrator.attempt.secrets import (
    MAX_BYTES,
    MAX_TOTAL_BYTES,
    SecretMissing,
    read_secrets,
)
from orchestrator.capacity import Capacity
from orchestrator.cli import pikaci
from orchestrator.cli.ending import exit_code
from orchestrator.errors import UsageError
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome
from orchestrator.incus import Incus, stdin_of
from orchestrator.job.queue import Queue
from orchestrator.job.task import JobTask
from orchestrator.session.recovery import recover
from states import events as ev
from states.environment import total_size
from states.lifecycle import State
from states.outcome import FailureKind, Outcome
from states.spec import SecretSource
from tests.calls import call
from tests.samples import sample_remote_context, sample_shell_job
from tests.unit.orchestrator.rig import Rig, open_rig

MARK = "s3cr3t-v4lue"
HOST = "PIKACI_TEST_HOST_SECRET"
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


def of_file(path: Path) -> dict[str, SecretSource]:
    return {"KEY": SecretSource(file=str(path))}


def test_values_come_from_variables_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, but for one line break at a file's end; a link to a file is a file."""
    monkeypatch.setenv(HOST, f" {MARK}\n")
    (tmp_path / "key").write_bytes(b"two\nlines\n\n")
    (tmp_path / "link").symlink_to("key")

    values = read_secrets({"TOKEN": SecretSource(env=HOST), **of_file(tmp_path / "link")}, {})

    assert {"TOKEN": f" {MARK}\n", "KEY": "two\nlines\n"} == values


def test_the_longest_value_passes(tmp_path: Path) -> None:
    """The limit is in bytes, without the line break, and itself allowed."""
    (tmp_path / "key").write_bytes(BOM_UTF8 + b"x" * MAX_BYTES + b"\r\n")

    assert MAX_BYTES == len(read_secrets(of_file(tmp_path / "key"), {})["KEY"])


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"one\r\n", "one"),
        (b"one\r\ntwo\r\n\r\n", "one\r\ntwo\r\n"),
        (b"one\r", "one\r"),
        (b"one\n\r", "one\n\r"),
        (BOM_UTF8 + b"one", "one"),
        (BOM_UTF8 + BOM_UTF8 + b"\n", "\ufeff"),
        (b"one" + BOM_UTF8, "one\ufeff"),
        (BOM_UTF8 + b"\r\n", ""),
        (b"", ""),
    ],
)
def test_what_an_editor_adds_is_no_part_of_a_value(
    tmp_path: Path, content: bytes, value: str
) -> None:
    """A byte order mark at the beginning, one line break of either kind at the end; no more."""
    (tmp_path / "key").write_bytes(content)

    assert {"KEY": value} == read_secrets(of_file(tmp_path / "key"), {})


@pytest.mark.parametrize("more", [0, 1])
def test_all_variables_together_are_not_too_much(tmp_path: Path, more: int) -> None:
    """Secrets and `env` have one limit; pikaci's own variables are not counted."""
    (tmp_path / "key").write_bytes(b"x" * 50_000)
    secrets = of_file(tmp_path / "key")
    fill = {f"V{n}": "x" * (100_000 - 3) for n in range(9)}
    left = MAX_TOTAL_BYTES - total_size({**fill, "REST": "", "KEY": "x" * 50_000})
    env = {**fill, "REST": "x" * (left + more), "CI": "true", "PIKACI_RUN": "x"}

    if not more:
        assert 50_000 == len(read_secrets(secrets, env)["KEY"])
        return
    with pytest.raises(
        SecretMissing, match=rf"secrets: with `env` they have {MAX_TOTAL_BYTES + 1}"
    ):
        read_secrets(secrets, env)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (MARK.encode() + b"x" * MAX_BYTES, "has more than 64 KiB"),
        (MARK.encode() + b"\0", "has a NUL byte"),
        (MARK.encode() + b"\xff", "is not UTF-8"),
    ],
)
def test_a_value_that_cannot_be_passed_is_not_shown(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    """The error names key and file; nothing that is chained to it has the value."""
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(SecretMissing) as caught:
        read_secrets(of_file(tmp_path / "key"), {})

    assert f"secrets.KEY: the file {tmp_path}/key {problem}" == caught.value.brief
    assert caught.value.resolution
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert MARK not in caught.value.brief + caught.value.details + caught.value.resolution


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    """A missing one, a directory, a fifo: at once, with nobody waiting for a writer."""
    os.mkfifo(tmp_path / "fifo")
    for name, problem in (
        ("none", "No such file or directory"),
        ("", "Is a directory"),
        ("fifo", "is not a regular file"),
    ):
        with pytest.raises(SecretMissing, match=problem):
            read_secrets(of_file(tmp_path / name), {})


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    monkeypatch.delenv(HOST, raising=False)

    with pytest.raises(SecretMissing) as caught:
        read_secrets({"TOKEN": SecretSource(env=HOST)}, {})

    assert f"secrets.TOKEN: the variable {HOST} is not set" == caught.value.brief
    assert f"export {HOST}" in caught.value.resolution


@given(values=st.dictionaries(st.sampled_from(["TOKEN", "KEY", "CI_TOKEN"]), VALUES, max_size=3))
def test_the_runner_gets_every_value_and_the_nonce_last(values: dict[str, str]) -> None:
    """Byte for byte, whatever a value holds."""
    plan = make_plan(sample_shell_job(), sample_remote_context())

    pairs = commands.runner_stdin(plan, "n0nce", values, lease_secs=9).decode().split("\0")

    assert ["PIKACI_INCUS_NONCE=n0nce", ""] == pairs[-2:]
    assert values.items() <= dict(pair.split("=", 1) for pair in pairs[:-1]).items()


@settings(max_examples=15)
@given(tail=VALUES.filter(lambda text: not text.endswith("\n")))
def test_a_value_is_seen_by_the_job_alone(
    tmp_path_factory: pytest.TempPathFactory, tail: str
) -> None:
    """Not by the journal, a call that was noted, the plan, or any file but the job's own log."""
    base = tmp_path_factory.mktemp("root")
    value = MARK + tail
    (base / "elsewhere").mkdir()
    (base / "elsewhere" / "key").write_bytes(value.encode())
    seen: list[dict[str, str]] = []

    async def script(command: GuestCommand) -> GuestOutcome:
        seen.append(command.environment)
        return GuestOutcome(1)

    async def live() -> None:
        async with open_rig(root, guest_script=script) as rig:
            spec = sample_shell_job(
                secrets={"TOKEN": SecretSource(env=HOST), **of_file(base / "elsewhere" / "key")}
            )
            await rig.live(spec)
            noted = msgspec.json.encode(rig.entries()).decode()
            plan = make_plan(spec, sample_remote_context())
            shown = noted + repr(rig.entries()) + repr(plan)
            assert "exec" in [note.argv[1] for note in rig.notes(ev.Called)]
            assert MARK not in shown + msgspec.json.encode(plan).decode()

    root = base / "root"
    root.mkdir()
    os.environ[HOST] = value
    try:
        trio.run(live)
    finally:
        del os.environ[HOST]

    assert [(value, value)] == [(env["TOKEN"], env["KEY"]) for env in seen]
    files = [path for path in root.rglob("*") if path.is_file()]
    assert root / "journal.sqlite3" in files
    assert [] == [path for path in files if MARK.encode() in path.read_bytes()]


async def test_a_secret_that_went_missing_fails_the_job(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Between the start of the run and the command's: with the source's name; no command ran."""
    async with open_rig(tmp_path) as rig:
        job = await rig.live(
            sample_shell_job(command="true", secrets=of_file(tmp_path / "gone"), retries=0)
        )

        assert job.failure is not None
        assert (State.FAILED, FailureKind.INFRASTRUCTURE) == (job.state, job.failure.kind)
        assert f"secrets.KEY: the file {tmp_path}/gone" in job.failure.message
        assert [] == [e for e in rig.entries() if isinstance(e, ev.Running)]
        assert not rig.fake.instances()


@pytest.mark.parametrize(
    "state",
    [
        State.SUBMITTED,
        State.ARTIFACTS_RESET,
        State.DEVICES_CONFIGURED,
        State.INSTANCE_READY,
    ],
)
async def test_a_job_left_by_a_dead_process_waits_for_its_secret(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """A process without it changes nothing; the next that has it goes on from there."""
    monkeypatch.delenv(HOST, raising=False)
    async with open_rig(tmp_path) as rig:
        await left_in(rig, state)
        before = rig.journal.job("r.1"), rig.fake.instances()
        await recover(rig.context, Queue(Capacity(jobs=1)))
        after = rig.journal.job("r.1"), rig.fake.instances()
        monkeypatch.setenv(HOST, MARK)
        await recover(rig.context, Queue(Capacity(jobs=1)))
        job = rig.journal.job("r.1")

        assert before == after
        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        assert not rig.fake.instances()


async def test_a_job_that_waits_for_its_secret_can_be_cancelled(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that has not got it either."""
    monkeypatch.delenv(HOST, raising=False)
    async with open_rig(tmp_path) as rig:
        await left_in(rig, State.DEVICES_CONFIGURED)
        await recover(rig.context, Queue(Capacity(jobs=1)), cancel=True)

        assert State.CANCELLED is rig.journal.job("r.1").state
        assert not rig.fake.instances()


async def test_what_waits_for_its_secret_in_a_process_that_stays_says_so(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, in the journal; it is ended when it is asked to, by who waits itself."""
    monkeypatch.delenv(HOST, raising=False)
    async with open_rig(tmp_path) as rig:
        await left_in(rig, State.ARTIFACTS_RESET)
        tasks: dict[str, JobTask] = {}
        async with trio.open_nursery() as nursery:
            go_on = partial(recover, tasks=tasks, stays=True)
            nursery.start_soon(go_on, rig.context, Queue(Capacity(jobs=1)))
            while not rig.notes(ev.Warned):
                await trio.sleep(0.1)
            tasks["r.1"].cancel("asked for")
        (warned,) = rig.notes(ev.Warned)

        assert f"waits for a secret: secrets.TOKEN: the variable {HOST} is not set" == (
            warned.message
        )
        assert State.CANCELLED is rig.journal.job("r.1").state


async def test_a_runner_that_was_started_needs_no_secret_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process died before it could say so; the job is followed, and its log is whole."""
    monkeypatch.setenv(HOST, MARK)
    async with open_rig(tmp_path) as rig:
        task = await left_in(rig, State.INSTANCE_READY, command="echo one; sleep 100; echo two")
        plan = task._attempts.current().plan
        stdin = commands.runner_stdin(
            plan, nonce(rig.journal.key, plan.instance), {"TOKEN": MARK}, lease_secs=999
        )
        with trio.move_on_after(50):
            await rig.context.incus.perform(commands.run(plan, stdin=stdin_of(lambda: stdin)))
        monkeypatch.delenv(HOST)
        await recover(rig.context, Queue(Capacity(jobs=1)))
        job = rig.journal.job("r.1")

        assert (Outcome.PASSED, 1) == (job.outcome, job.attempt)
        log = (rig.context.root.attempt_dir("r.1", 1) / "guest.log").read_bytes()
        assert [b"one", b"two"] == log.splitlines()[1:]


async def left_in(rig: Rig, state: State, command: str = "true") -> JobTask:
    """A job with a secret, driven to this state by a process that died then."""
    spec = sample_shell_job(command=command, secrets={"TOKEN": SecretSource(env=HOST)})
    task = await rig.submit(spec)
    with trio.CancelScope() as process:
        # One exec leads through several states.
        rig.journal.observe(
            lambda entry: process.cancel() if ev.tag(type(entry)) == state.value else None
        )
        while task.job.state is not state:
            await task._steps.next()
    return task


async def test_a_client_inherits_only_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable that may be a secret, none that sends a call elsewhere."""
    program = tmp_path / "incus"
    program.write_text("#!/bin/sh\nexec env\n")
    program.chmod(0o755)
    wanted = {"INCUS_SOCKET": "/socket", "HTTPS_PROXY": "http://proxy", "HOME": "/home/me"}
    for name in (HOST, "INCUS_TOKEN", "INCUS_REMOTE", "INCUS_PROJECT", "XDG_TOKEN"):
        monkeypatch.setenv(name, MARK)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)

    done = await call(Incus(tmp_path / "conf", program=str(program)), "list", deadline_secs=30)

    had = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert MARK not in had.values()
    assert wanted.items() <= had.items()
    assert str(tmp_path / "conf") == had["INCUS_CONF"]
    assert str(tmp_path / "conf" / "cache") == had["INCUS_CACHE"]


FILE = f"""
schema = 1
[jobs.deploy]
command = "./deploy"
secrets = {{ TOKEN = {{ env = "{HOST}" }}, KEY = {{ file = "key" }} }}
"""


def test_a_missing_secret_ends_a_run_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and one line with job, key and source; not even a state root is made."""
    monkeypatch.setenv(HOST, MARK)
    (tmp_path / "pikaci.toml").write_text(FILE)
    root = tmp_path / "root"

    with pytest.raises(Exception, match="jobs.deploy.secrets.KEY") as caught:
        CliRunner().invoke(
            pikaci,
            ["run", "--workspace", str(tmp_path), "--state-root", str(root)],
            catch_exceptions=False,
            standalone_mode=False,
        )

    assert isinstance(caught.value, UsageError)
    assert 2 == exit_code(caught.value)
    assert f"{tmp_path}/key cannot be read" in caught.value.brief
    assert MARK not in caught.value.brief
    assert not root.exists()


def test_a_dry_run_names_the_sources_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that is there is not shown; one that is missing is not missed."""
    monkeypatch.setenv(HOST, MARK)
    (tmp_path / "pikaci.toml").write_text(FILE)

    done = CliRunner().invoke(
        pikaci,
        ["run", "--dry-run", "--workspace", str(tmp_path), "--state-root", str(tmp_path / "root")],
        catch_exceptions=False,
    )

    assert f"TOKEN=<the variable {HOST}>" in done.output
    assert f"KEY=<the file {tmp_path}/key>" in done.output
    assert MARK not in done.output
