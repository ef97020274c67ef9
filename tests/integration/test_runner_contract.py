"""A job in a guest, by the orchestrator's own commands: the fake guest against the image's."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.archive import collect_command
from orchestrator.attempt.guest_scripts import NOT_READY
from orchestrator.attempt.plan import Plan, PlanContext, make_plan
from orchestrator.contract import contract
from orchestrator.incus import Completed, Host, Into, stdin_of, to_sink
from states.spec import JobSpec
from tests.integration.lab import IMAGE, SECS, Lab, on_the_program_too

NONCE = "0123456789abcdef"
LEASE_SECS = 600
HEADER = b"[pikaci] incus guest booted at "


class JobInGuest:
    """One job's plan, and the calls that carry it out."""

    def __init__(self, lab: Lab, plan: Plan) -> None:
        self.lab = lab
        self.plan = plan

    async def boot(self) -> Completed:
        """Create and start, wait until ready; the wait as it ended."""
        await self.lab.incus.perform(commands.create(self.plan))
        return await self.lab.incus.perform(commands.ready(self.plan))

    async def run(self, *, nonce: str = NONCE, into: Into | None = None) -> Completed:
        stdin = commands.runner_stdin(self.plan, nonce, {}, lease_secs=LEASE_SECS)
        effect = commands.run(self.plan, stdin=stdin_of(lambda: stdin), secs=SECS)
        return await self.lab.incus.perform(effect, into=into)

    async def run_until(self, words: bytes) -> None:
        """Run it; its exec is lost when the log has these words."""
        log = bytearray()

        async def sink(chunk: bytes) -> None:
            log.extend(chunk)
            if words in log:
                client.cancel()

        with trio.CancelScope() as client:
            await self.run(into=to_sink(sink))
        assert client.cancelled_caught

    async def runner(self, *args: str) -> Completed:
        return await self.lab.exec(self.plan.instance, contract().runner, *args)

    async def collect(self, globs: tuple[str, ...], *, want_log: bool) -> dict[str, bytes]:
        command = collect_command(globs, want_log=want_log)
        done = await self.lab.incus.perform(commands.collect(self.plan, command))
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            return {
                member.name: content.read()
                for member in archive
                if (content := archive.extractfile(member)) is not None
            }

    async def result(self) -> Any:
        return json.loads(await self._read(contract().result))

    async def log(self) -> bytes:
        return await self._read(contract().log)

    async def _read(self, path: str) -> bytes:
        """A file that is not empty. Incus may lose what an exec prints that ends at once."""
        for _ in range(3):
            done = await self.lab.exec(self.plan.instance, "cat", path)
            if done.stdout:
                break
        return done.stdout


async def planned(lab: Lab, tree: Path, command: str, **spec: Any) -> JobInGuest:
    """A job over the directory `tree`, ready to boot; its guest is deleted with the lab."""
    tree.chmod(0o755)  # the job's user reads it
    plan = make_plan(
        JobSpec(command=command, **spec),
        PlanContext(
            host=Host(),
            owner=lab.owner,
            run="run",
            job=lab.name(),
            name="job",
            attempt=1,
            snapshot=str(tree),
            commit="",
            fingerprint=(await lab.query(f"/1.0/images/aliases/{IMAGE}"))["target"],
            lease_ends=datetime(2100, 1, 1, tzinfo=UTC),
        ),
    )
    lab.made.append(plan.instance)
    return JobInGuest(lab, plan)


async def booted(lab: Lab, tree: Path, command: str, **spec: Any) -> JobInGuest:
    """The same, booted and ready."""
    job = await planned(lab, tree, command, **spec)
    waited = await job.boot()
    assert (0, b"") == (waited.exit_code, waited.stdout)
    return job


@on_the_program_too
@pytest.mark.parametrize(
    ("command", "exit_code", "status", "message"),
    [
        ("echo hello", 0, "passed", "test passed"),
        ("echo hello; exit 7", 7, "failed", "test command exited with 7"),
        ("echo hello; sleep 50", 124, "timed_out", "test command timed out after 2s"),
    ],
)
async def test_log_and_result(
    lab: Lab, tmp_path: Path, command: str, exit_code: int, status: str, message: str
) -> None:
    """The log comes over the exec; log and result lie in their places when it has ended."""
    job = await booted(lab, tmp_path, command, timeout_secs=2)
    ended = await job.run()
    result = await job.result()

    assert exit_code == ended.exit_code
    assert ended.stdout.startswith(HEADER)
    assert b"hello" == ended.stdout.splitlines()[1]
    assert ended.stdout == await job.log()
    assert (status, exit_code, message) == (
        result["status"],
        result["exit_code"],
        result["message"],
    )
    assert (NONCE, 1, contract().version) == (
        result["nonce"],
        result["schema"],
        result["contract"],
    )
    assert (len(ended.stdout), True) == (result["log_bytes"], result["log_complete"])
    began, finished = (
        datetime.fromisoformat(result[f"{end}_at"]) for end in ("started", "finished")
    )
    assert began <= finished
    assert began.tzinfo is not None


@on_the_program_too
async def test_snapshot_is_where_the_command_starts(lab: Lab, tmp_path: Path) -> None:
    """The command reads the snapshot at its path, and what it leaves is below /artifacts."""
    (tmp_path / "file").write_bytes(b"content")
    job = await booted(
        lab, tmp_path, "cat /workspace/snapshot/file; echo report > /artifacts/report"
    )
    ended = await job.run()

    assert (0, b"content") == (ended.exit_code, ended.stdout.partition(b"\n")[2])
    left = await lab.exec(job.plan.instance, "cat", "/artifacts/report")
    assert b"report\n" == left.stdout


@on_the_program_too
async def test_collect(lab: Lab, tmp_path: Path) -> None:
    """One exec gives result, log and the artifacts that a glob takes, and no others."""
    job = await booted(lab, tmp_path, "echo x > /artifacts/a.xml; echo y > /artifacts/b.txt")
    ended = await job.run()
    with_log = await job.collect(("*.xml",), want_log=True)
    without = await job.collect((), want_log=False)

    assert {"./result.json", "./guest.log", "./a.xml"} == with_log.keys()
    assert (ended.stdout, b"x\n") == (with_log["./guest.log"], with_log["./a.xml"])
    assert NONCE == json.loads(with_log["./result.json"])["nonce"]
    assert {"./result.json"} == without.keys()


async def test_not_ready_names_the_mount(lab: Lab, tmp_path: Path) -> None:
    """A path that is not mounted is named when the time for it is over; a directory is none."""
    job = await planned(lab, tmp_path, "true")
    await job.boot()
    wait = list(commands.ready(job.plan).args)
    at = wait.index("pikaci-ready") + 1
    wait[at] = "1"
    waited = await lab.run(*wait, "/cargo-home", check=False)

    assert (NOT_READY, b"the mount /cargo-home") == (waited.exit_code, waited.stdout)


async def test_lost_exec_is_followed(lab: Lab, tmp_path: Path) -> None:
    """A job outlives its exec: `follow` gives the whole log, or the rest, and the exit code."""
    job = await booted(lab, tmp_path, "echo one; sleep 1; echo two; exit 3")
    await job.run_until(b"one")
    whole = await job.runner("follow", "0")
    rest = await job.runner("follow", str(len(whole.stdout) - 4))
    again = await job.run()

    assert (3, b"one\ntwo\n") == (whole.exit_code, whole.stdout.partition(b"\n")[2])
    assert (3, b"two\n") == (rest.exit_code, rest.stdout)
    assert (3, whole.stdout) == (again.exit_code, again.stdout)
    assert "failed" == (await job.result())["status"]


@pytest.mark.parametrize("how", [["cancel"], ["cancel", "now"]])
async def test_cancel(lab: Lab, tmp_path: Path, how: list[str]) -> None:
    """`cancel` returns when the job is dead and its result in place; twice is harmless."""
    job = await booted(lab, tmp_path, "echo one; sleep 50")
    before = await job.runner(*how)
    await job.run_until(b"one")
    first = await job.runner(*how)
    result = await job.result()
    again = await job.runner(*how)
    followed = await job.runner("follow", "0")

    assert [125, 0, 0] == [before.exit_code, first.exit_code, again.exit_code]
    assert ("cancelled", 130) == (result["status"], result["exit_code"])
    assert "test command was cancelled" == result["message"]
    assert (130, b"one") == (followed.exit_code, followed.stdout.splitlines()[1])


async def test_follow_refuses(lab: Lab, tmp_path: Path) -> None:
    """There is nothing to follow without a job, and not beyond the log's end."""
    job = await booted(lab, tmp_path, "true")
    early = await job.runner("follow", "0")
    ended = await job.run()
    beyond = await job.runner("follow", str(len(ended.stdout) + 1))
    unknown = await job.runner("fallow")

    assert [125] * 3 == [done.exit_code for done in (early, beyond, unknown)]
    assert [b""] * 3 == [done.stdout for done in (early, beyond, unknown)]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"COMMAND": None}, "PIKACI_INCUS_GUEST_COMMAND is not set"),
        ({"TIMEOUT": ""}, "PIKACI_INCUS_TIMEOUT_SECS is not set"),
        ({"ROOT": None}, "PIKACI_INCUS_RUN_AS_ROOT is not set"),
        (
            {"TIMEOUT": "0"},
            "PIKACI_INCUS_TIMEOUT_SECS must be a whole number of seconds from 1 to 9999999",
        ),
        ({"ROOT": "yes"}, "PIKACI_INCUS_RUN_AS_ROOT must be 1 or 0"),
    ],
)
async def test_runner_refuses_variables(
    lab: Lab, tmp_path: Path, variables: dict[str, str | None], problem: str
) -> None:
    """A variable that is missing or wrong is named in log and result, with code 125."""
    job = await booted(lab, tmp_path, "true")
    names = contract().variables
    given = {"COMMAND": "true", "TIMEOUT": "9", "ROOT": "0", **variables}
    env = [
        f"{name}={given[key]}"
        for key, name in {
            "COMMAND": names.command,
            "TIMEOUT": names.timeout_secs,
            "ROOT": names.run_as_root,
        }.items()
        if given[key] is not None
    ]
    stdin = commands.runner_stdin(job.plan, NONCE, {}, lease_secs=LEASE_SECS)
    ended = await lab.exec(job.plan.instance, "env", *env, contract().runner, stdin=stdin)
    result = await job.result()

    assert (125, 125) == (ended.exit_code, result["exit_code"])
    assert f"[pikaci] error: {problem}\n".encode() == ended.stdout.splitlines(keepends=True)[1]
    assert ("error", problem, NONCE) == (result["status"], result["message"], result["nonce"])


async def test_runner_starts_nothing_on_a_torn_stdin(lab: Lab, tmp_path: Path) -> None:
    """By the nonce, which comes last, the runner knows that all has come; the next start is one."""
    job = await booted(lab, tmp_path, "echo ran")
    torn = commands.run(job.plan, stdin=stdin_of(lambda: b"A=b\0PIKACI_INC"))
    ended = await lab.incus.perform(torn)
    followed = await lab.incus.perform(commands.follow(job.plan, 0))

    assert (commands.NOT_STARTED, b"") == (ended.exit_code, ended.stdout)
    assert b"stdin was cut short, no job was started" in ended.stderr
    assert 125 == followed.exit_code

    assert b"ran" == (await job.run()).stdout.splitlines()[1]
    assert "passed" == (await job.result())["status"]


async def test_runner_refuses_a_torn_stdin_of_an_older_host(lab: Lab, tmp_path: Path) -> None:
    """One that does not say that there is a nonce: the job is refused, and no other start helps."""
    job = await booted(lab, tmp_path, "echo never")
    torn = commands.run(job.plan, stdin=stdin_of(lambda: b"A=b\0PIKACI_INC"))
    older = tuple(word for word in torn.args if "NEEDS_NONCE" not in word)
    ended = await lab.incus.perform(replace(torn, args=older))
    result = await job.result()

    assert 125 == ended.exit_code
    assert b"never" not in ended.stdout
    assert "error" == result["status"]
    expected = "stdin was cut short: PIKACI_INCUS_NONCE, which comes last, is missing"
    assert expected == result["message"]


async def test_stopped_guest_keeps_the_log(lab: Lab, tmp_path: Path) -> None:
    """The log of a job whose guest stopped lies in the runner's private directory."""
    job = await booted(lab, tmp_path, "echo one; sleep 50")
    await job.run_until(b"one")
    await lab.run("stop", "--quiet", "--force", f"local:{job.plan.instance}")
    pulled = await lab.incus.perform(commands.pull_log(job.plan, f"{contract().private}/guest.log"))

    assert pulled.stdout.startswith(HEADER)
    assert b"one" == pulled.stdout.splitlines()[1]
