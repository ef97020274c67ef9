"""The effects of a job as a table, and the two doors that they go through."""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from orchestrator.attempt import effects as commands
from orchestrator.attempt.plan import make_plan
from orchestrator.fake_incus import FakeIncus
from orchestrator.image.store import list_images
from orchestrator.incus import Completed, Deadline, Effect, Incus, Retry, stdin_of, to_sink
from orchestrator.incus.errors import (
    AgentAway,
    AnswerUnreadable,
    DaemonUnreachable,
    DeadlinePassed,
    IncusError,
    OutcomeUnknown,
    OutputTooLong,
    broken_off,
)
from orchestrator.incus.instances import Instance, list_instances
from states.outcome import Outcome, Verdict
from states.spec import Deadlines, JobSpec
from tests.samples import sample_remote_context, valid_specs
from tests.unit.orchestrator.rig import open_rig

LOST = b"Error: websocket: close 1006 (abnormal closure): unexpected EOF\n"
WEEKS = 20 * 7 * 24 * 3600


@given(valid_specs())
def test_every_effect_has_a_deadline_a_bound_and_a_retry_rule(spec: JobSpec) -> None:
    """Whatever the spec says: nothing waits, prints or is tried for ever."""
    for effect in commands.of(make_plan(spec, sample_remote_context())):
        assert 0 < effect.deadline.secs < math.inf, effect.name
        assert effect.deadline.secs <= effect.longest_secs < WEEKS, effect.name
        assert 0 < effect.max_bytes < math.inf, effect.name
        assert 0 <= effect.retry.secs < math.inf, effect.name
        assert effect.retry.silent_tries >= 1, effect.name


@given(valid_specs())
def test_a_setting_that_is_named_is_one_of_the_specs(spec: JobSpec) -> None:
    """So that an error's `deadlines.NAME` is a key that can be typed."""
    for effect in commands.of(make_plan(spec, sample_remote_context())):
        assert {*effect.deadline.settings} <= {*Deadlines.__struct_fields__}


def test_what_makes_an_instance_is_not_sent_twice() -> None:
    """Of the effects that are retried after an answer that got lost, none makes anything."""
    plan = make_plan(JobSpec(command="true"), sample_remote_context())
    twice = {e.name for e in commands.of(plan) if OutcomeUnknown in e.retry.on}

    assert {"hot-plug", "ready", "collect", "delete"} == twice


@given(valid_specs(), st.text(min_size=30))
def test_no_effect_can_show_what_goes_over_stdin(spec: JobSpec, secret: str) -> None:
    """Printed, compared or in a traceback: an effect has no secret."""
    plan = make_plan(spec, sample_remote_context())
    effect = commands.run(plan, stdin=stdin_of(lambda: secret.encode("utf-8", "replace")))

    assert "stdin" not in repr(effect)
    assert effect == commands.run(plan, stdin=stdin_of(bytes))


# A spawn that does what a test says, call by call.


class Script:
    """Answers each call by the next of its steps: (seconds, exit code, stdout, stderr)."""

    def __init__(self, *steps: tuple[float, int, bytes, bytes]) -> None:
        self.steps = list(steps)
        self.calls = 0

    async def __call__(self, argv: Sequence[str], *, sink: Any, **_: Any) -> Completed:
        self.calls += 1
        secs, code, out, err = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        await trio.sleep(secs)
        await sink(out)
        return Completed(tuple(argv), code, b"", err)


def effect(**options: Any) -> Effect:
    return Effect(**{"name": "x", "args": ("list",), "deadline": Deadline(1000.0), **options})


async def test_retries_begin_at_the_first_failure(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A call that breaks off after 130 s has its 120 s of retries yet to come."""
    script = Script((130, 1, b"", LOST), (130, 0, b"ok", b""))
    retry = Retry(on=(OutcomeUnknown,), secs=120)

    done = await Incus(tmp_path, spawn=script).perform(effect(retry=retry))

    assert (b"ok", 2) == (done.stdout, script.calls)


async def test_retries_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    """They are over when the first failure is so long ago, and the last error is raised."""
    script = Script((0, 1, b"", b"Error: connect: connection refused"))
    began = trio.current_time()

    with pytest.raises(DaemonUnreachable):
        await Incus(tmp_path, spawn=script).perform(
            effect(retry=Retry(on=(DaemonUnreachable,), secs=30))
        )

    assert 30 <= trio.current_time() - began <= 33


async def test_a_command_that_must_print_is_run_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Incus sometimes loses what a short exec printed; one that failed is another matter."""
    lost = Script((0, 0, b"", b""), (0, 0, b"", b""), (0, 0, b"said", b""))
    failed = Script((0, 3, b"", b""))
    asks = effect(exit_codes=None, retry=Retry(silent_tries=5))

    assert b"said" == (await Incus(tmp_path, spawn=lost).perform(asks)).stdout
    assert 3 == (await Incus(tmp_path, spawn=failed).perform(asks)).exit_code
    assert (3, 1) == (lost.calls, failed.calls)


async def test_a_deadline_names_its_setting(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The resolution is a key of the job file."""
    script = Script((1000, 0, b"", b""))

    with pytest.raises(DeadlinePassed, match="incus list did not end within 5 s") as error:
        await Incus(tmp_path, spawn=script).perform(effect(deadline=Deadline(5, ("start_secs",))))

    assert "deadlines.start_secs sets the limit" in error.value.resolution


async def test_a_limit_that_two_settings_make_names_both(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A launch creates and starts: who looks for its 720 s in one of them would not find them."""
    create = commands.create(make_plan(JobSpec(command="true"), sample_remote_context()))
    script = Script((1000, 0, b"", b""))

    with pytest.raises(DeadlinePassed, match="did not end within 720 s") as error:
        await Incus(tmp_path, spawn=script).perform(create)

    both = "deadlines.create_secs and deadlines.start_secs together set the limit"
    assert both in error.value.resolution


async def test_output_is_bounded(tmp_path: Path) -> None:
    """A real command that prints for ever is stopped at its bound; a sink gets just so much."""
    program = tmp_path / "incus"
    program.write_text("#!/bin/sh\nexec cat /dev/zero\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    incus = Incus(tmp_path / "conf", program=str(program))
    got = 0

    async def sink(chunk: bytes) -> None:
        nonlocal got
        got += len(chunk)

    for into in (None, to_sink(sink)):
        with pytest.raises(OutputTooLong, match="printed more than 100000 bytes"):
            await incus.perform(effect(max_bytes=100_000), into=into)

    assert 100_000 == got


@pytest.mark.parametrize("code", [1, 2, 7, 127, 137, 255])
@pytest.mark.parametrize(
    ("stderr", "kind"),
    [
        (LOST, OutcomeUnknown),
        (b"Error: websocket: close 1006 (abnormal closure): unexpected EOF", OutcomeUnknown),
        (b"websocket: close 1006 (abnormal closure): unexpected EOF\n", OutcomeUnknown),
        (b"Error: read unix @->/run/x.sock: connection reset by peer\n", OutcomeUnknown),
        (b"Error: VM agent isn't currently running\n", AgentAway),
        (b"Error: The incus daemon doesn't appear to be started\n", DaemonUnreachable),
        (b"", None),
        (b"Error: Command not found\n", None),
        (b"[pikaci] error: the job's log reached its limit\n", None),
        (b"tar: ./x: Cannot open: No such file or directory\n", None),
    ],
)
def test_a_broken_connection_is_told_by_its_words(
    code: int, stderr: bytes, kind: type[IncusError] | None
) -> None:
    """And by no exit code: each may be the command's own, and each the client's."""
    error = broken_off(["incus", "exec"], code, stderr)

    assert (type(error) if error else None) is kind


def test_a_command_that_ended_well_has_not_broken_off() -> None:
    """Whatever it wrote to stderr."""
    assert broken_off(["incus", "exec"], 0, LOST) is None


def test_a_client_that_was_killed_has_broken_off() -> None:
    """What it asked for may have been carried out."""
    assert isinstance(broken_off(["incus", "exec"], -9, b""), OutcomeUnknown)


async def test_a_job_outlives_an_agent_that_stops(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Its exec then ends with 255, which is no exit code of the command's."""
    async with open_rig(tmp_path) as rig:
        rig.fake.break_off("pikaci-incus-run", secs=5, exit_code=255)
        job = await rig.live(JobSpec(command="echo one; sleep 20; echo two"))

        log = (rig.context.root.attempt_dir("r.1", 1) / "guest.log").read_bytes()
        assert Outcome.PASSED is job.outcome
        assert [b"one", b"two"] == log.splitlines()[1:]


async def test_a_command_may_end_with_255(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It failed, and nothing broke off."""
    async with open_rig(tmp_path) as rig:
        job = await rig.live(JobSpec(command="exit 255"))

        assert (Outcome.FAILED, 255, 1) == (job.outcome, job.exit_code, job.attempt)


async def test_a_collect_that_breaks_off_late(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A job that passed stays so, however long the first try of collecting took."""
    async with open_rig(tmp_path) as rig:
        rig.fake.break_off("pikaci-collect", secs=130)
        job = await rig.live(JobSpec(command="true", deadlines=Deadlines(collect_secs=3000)))

        assert Verdict.PASSED is job.verdict


@pytest.mark.parametrize("program", ["pikaci-ready", "pikaci-collect", "pikaci-incus-run"])
async def test_a_guest_that_prints_without_end(
    tmp_path: Path, autojump_clock: MockClock, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is stopped at its bound, and the job ends as a fault that says so."""
    monkeypatch.setattr(commands, "LOG_BYTES", 1 << 20)
    monkeypatch.setattr(commands, "ARCHIVE_BYTES", 1 << 20)
    async with open_rig(tmp_path) as rig:
        rig.fake.flood(program, times=100)
        job = await rig.live(JobSpec(command="true"))

        assert Verdict.INFRASTRUCTURE is job.verdict
        assert job.failure is not None
        assert f"printed more than {1 << 20} bytes" in job.failure.message
        assert {} == rig.fake.instances()


# The second door: answers of a type, or an error.


@given(st.binary(max_size=60))
def test_any_answer_is_of_the_type_or_an_error(tmp_path_factory: Any, answer: bytes) -> None:
    """Nothing else comes out of a query, whatever the daemon says."""
    incus = Incus(tmp_path_factory.mktemp("conf"), spawn=Script((0, 0, answer, b"")))

    async def ask() -> None:
        for kind in (list[Instance], Instance, dict[str, Any], msgspec.Raw):
            try:
                await incus.query("/1.0/x", kind, deadline=Deadline(9))  # type: ignore[arg-type]
            except AnswerUnreadable:
                pass

    trio.run(ask)


@pytest.mark.parametrize(
    "answer", [b"[[[", b'{"a"', b'"text"', b"\xff", b"[" * 5000, b'[{"name":1}]']
)
async def test_an_unreadable_list(tmp_path: Path, autojump_clock: MockClock, answer: bytes) -> None:
    """A half answer, one of another form, and bytes that are no text."""
    async with FakeIncus.open() as fake:
        incus = Incus(tmp_path, spawn=fake)
        for look in (list_instances, list_images):
            fake.garble("query", prints=answer)
            with pytest.raises(
                AnswerUnreadable, match=r"incus query /1\.0/\w+ gave an answer that cannot be read"
            ):
                await look(incus)


async def test_no_answer_is_an_empty_list(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Where there is nothing to list, the client prints nothing."""
    async with FakeIncus.open() as fake:
        fake.garble("query", prints=b"\n")

        assert [] == await list_instances(Incus(tmp_path, spawn=fake))


async def test_a_query_asks_again_for_what_it_cannot_read(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """When its retry rule has it so."""
    script = Script((0, 0, b"[", b""), (0, 0, b'{"name":"a","config":{}}', b""))
    retry = Retry(on=(AnswerUnreadable,), secs=9)

    found = await Incus(tmp_path, spawn=script).query(
        "/1.0/instances/a", Instance, deadline=Deadline(9), retry=retry
    )

    assert Instance("a", {}) == found
