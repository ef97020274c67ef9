"""A state root whose processes are killed, and what must be true when all has come to its end."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.incus import LOCAL, Host, Incus
from orchestrator.incus.instances import list_instances
from orchestrator.job.context import Context
from orchestrator.journal import open_journal
from orchestrator.log_times import read_log_times
from orchestrator.session import reaper
from orchestrator.state_root import StateRoot
from states import events as ev
from states.job import Job
from states.lifecycle import State
from states.outcome import Verdict
from tests.calls import call
from tests.kill.fake_daemon import Late
from tests.kill.process import Options
from tests.kill.starter import Starter

# One command shows a whole log, an artifact, and an exit code that nothing else makes.
COMMAND = "echo one; sleep {secs}; echo kept > /artifacts/kept.txt; echo two; exit 3"
JOB_FILE = f"""\
schema = 1

[jobs.talks]
egress = {{egress}}
command = "{COMMAND}"
artifacts = ["kept.txt"]
"""
LINES = [b"one", b"two"]
ENDINGS = (ev.ResultCollected, ev.Failed, ev.Cancelled, ev.Rejected)


def make_workspace(base: Path, *, secs: float, egress: bool = False) -> Path:
    """A workspace with a job that takes `secs`, and ends as `Verdict.FAILED`.

    `egress`: it has a way out, and does not use it.
    """
    workspace = base / "workspace"
    workspace.mkdir()
    (workspace / "pikaci.toml").write_text(
        JOB_FILE.format(secs=secs, egress='["*"]' if egress else "[]")
    )
    (workspace / "hello.txt").write_text("hello\n")
    return workspace


class NotKilled(Exception):
    """The process did not come by the point; what it said."""


@dataclass
class Scene:
    """A state root of one case's own, on an Incus that also has another owner's instance.

    `socket` is a fake daemon's, "" for the real one; `ran` are the commands that its guests ran,
    and `late` what it has still to do for clients that are dead. `environment` leads to the `host`
    that runs the guests, on the same Incus.
    """

    starter: Starter
    workspace: Path
    base: Path
    incus: Incus
    alien: str
    socket: str = ""
    unanswered_secs: float | None = None
    ran: list[str] = field(default_factory=list)
    late: Late = field(default_factory=Late)
    host: str = LOCAL
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> StateRoot:
        return StateRoot(self.base / "root")

    async def pikaci(
        self, *args: str, point: str = "", group: bool = False, warm: bool = False
    ) -> tuple[int, str]:
        """Run pikaci to its end, or its death at the point; exit code and output.

        `warm` is for a program with a warm guest, whose jobs have the one argument as command.
        """
        options = Options(
            warm=warm,
            point=point,
            group=group,
            reached=str(self.base / f"{'warm' if warm else args[0]}.reached"),
            incus=self.socket,
            unanswered_secs=self.unanswered_secs,
            environment=self.environment,
        )
        return await self.starter.run(options, self.root.path, self.workspace, args)

    async def killed(self, *args: str, point: str, group: bool = False, warm: bool = False) -> None:
        """Run pikaci until it dies at the point."""
        code, output = await self.pikaci(*args, point=point, group=group, warm=warm)
        if code != -signal.SIGKILL:
            raise NotKilled(output)

    def reached(self, command: str) -> list[str]:
        """The points that the last such command came by."""
        return (self.base / f"{command}.reached").read_text().split()

    async def faults(self, *verdicts: Verdict) -> list[str]:
        """What is wrong at the end, when the jobs should have these verdicts."""
        await self.late.wait_done()
        host = Host(name=self.host)
        found = await faults(self.root, self.incus, verdicts=verdicts, host=host)
        listed = await call(self.incus, "list", "-f", "csv", "-c", "n", deadline_secs=60)
        if self.alien not in listed.stdout.decode().split():
            found.append("another owner's instance was touched")
        if len(self.ran) > len(verdicts):
            found.append(f"the command ran {len(self.ran)} times")
        return found


async def make_alien(incus: Incus, name: str, *, image: str) -> None:
    """An instance named like ours, and tagged like ours but for the owner."""
    document = {
        "config": {reaper.OWNER: "somebody-else", reaper.RUN: "theirs"},
        "devices": {"root": {"type": "disk", "path": "/", "pool": "pikaci"}},
    }
    await call(
        incus,
        *("create", "--quiet", "--no-profiles", f"local:{image}", f"local:{name}"),
        stdin=json.dumps(document).encode(),
        deadline_secs=60,
    )


async def faults(
    root: StateRoot, incus: Incus, *, verdicts: Sequence[Verdict], host: Host | None = None
) -> list[str]:
    """What is wrong with a state root whose jobs should all have ended; nothing, it is hoped.

    `verdicts` are those of its jobs, all on this host.
    """
    if not root.journal.exists():
        return ["there is no journal"] if verdicts else []
    with open_journal(root.journal) as journal:
        found = [f"open lease: {lease.instance}" for lease in journal.open_leases()]
        jobs = [journal.job(row.id) for row in journal.jobs()]
        seen = [job.verdict for job in jobs]
        if seen != list(verdicts):
            states = [(job.state.value, job.failure and job.failure.message) for job in jobs]
            found.append(f"the verdicts are {seen}, not {verdicts}: {states}")
        for job in jobs:
            endings = [entry for _, entry in journal.entries(job.id) if isinstance(entry, ENDINGS)]
            if len(endings) != 1:
                found.append(f"it ended {len(endings)} times")
            found += _faults_of_evidence(job)
        context = Context(root=root, journal=journal, incus=incus, host=host or Host())
        for instance in await list_instances(context.incus):
            if instance.config.get(reaper.OWNER) == journal.owner:
                found.append(f"leaked: {instance.name}")
        found += [f"would be reaped: {one.instance}" for one in await reaper.unneeded(context)]
    return found


def _faults_of_evidence(job: Job) -> list[str]:
    """What is wrong with the log and the artifact of a job that began to run."""
    if all(phase.state is not State.RUNNING for phase in job.phases):
        return []
    assert job.artifacts is not None
    directory = Path(job.artifacts)
    kept = directory / "artifacts" / "kept.txt"
    whole = (directory / "guest.log").read_bytes()
    log = whole.splitlines()[1:]
    moments = [read_log_times(directory / "guest.log").at(at) for at in range(len(whole))]
    known = [moment for moment in moments if moment is not None]
    # A process that is killed may leave the log to be collected; else it is followed from its start.
    if known != sorted(known) or known != moments[: len(known)]:
        return [f"the times of the log are {moments}"]
    if job.verdict is Verdict.CANCELLED:
        # Its command may have come to its end before anybody could end it.
        return [] if log in (LINES[:1], LINES) else [f"the log of a cancelled job is {log}"]
    found = [] if log == LINES else [f"the log is {log}"]
    if not kept.exists() or kept.read_bytes() != b"kept\n":
        found.append("the artifact is not there")
    if job.exit_code != 3:
        found.append(f"the exit code is {job.exit_code}")
    return found
