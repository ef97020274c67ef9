"""Does an image keep the guest contract? A guest of it is asked, row by row.

The rows are the promises of docs/guest-contract.md. Each is tried in a real guest; none is
believed because the image says so.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import trio

from orchestrator import commands
from orchestrator.contract import contract
from orchestrator.image.store import list_images
from orchestrator.incus import Completed, Incus
from orchestrator.incus_errors import DeadlinePassed
from orchestrator.plan import Host, Plan, PlanContext, make_plan
from orchestrator.result import GuestResult, parse_result
from states.errors import PikaciError
from states.spec import InstanceType, JobSpec

CALL_SECS = 60.0
LEASE = timedelta(minutes=10)
READY_SECS = 30


class Row(msgspec.Struct, frozen=True):
    """One promise of the contract. `found` says what was seen when it is not kept."""

    subject: str
    kept: bool
    found: str = ""


async def check_image(
    incus: Incus, host: Host, alias: str, *, owner: str = "image-check"
) -> AsyncIterator[Row]:
    """Try every promise; the guest is gone when this ends, however it ends.

    `owner` is the guest's `user.pikaci.owner` key.
    """
    images = [image for image in await list_images(incus) if image.has_alias(alias)]
    if not images:
        raise PikaciError(
            f"there is no image {alias} in project {incus.project} of {incus.remote}",
            resolution="`pikaci image list` shows what there is",
        )
    (image,) = images
    ours = contract()
    yield Row(
        f"property {ours.image_property} is {ours.version}",
        image.contract == str(ours.version),
        f"it is {image.contract or 'not there'}",
    )
    with tempfile.TemporaryDirectory(prefix="pikaci-check-") as directory:
        tree = Path(directory)
        tree.chmod(0o755)
        (tree / "probe").write_text("probe\n")
        spec = JobSpec(command="true", image=alias, instance_type=InstanceType(image.type))
        async with _guest(incus, host, spec, tree, image.fingerprint, owner) as (plan, ready):
            yield Row(
                f"ready within {READY_SECS} s, with {ours.runner}",
                ready.exit_code == 0,
                f"{ready.stdout.decode('utf-8', 'replace')} is missing",
            )
            if ready.exit_code != 0:
                return
            async for row in _rows(incus, plan):
                yield row


async def _rows(incus: Incus, plan: Plan) -> AsyncIterator[Row]:
    guest = _Guest(incus, plan)
    ours = contract()
    user = ours.user
    yield await guest.says(
        f"user {user.name} is {user.uid}:{user.gid} ({user.group})",
        f"id -u {user.name}; id -g {user.name}; id -gn {user.name}",
        f"{user.uid}\n{user.gid}\n{user.group}\n",
    )
    for directory in ours.directories:
        if directory.path in plan.mounts:
            continue  # the mount hides it
        mode = directory.mode.lstrip("0")
        yield await guest.says(
            f"{directory.path} of {directory.user}:{directory.group}, mode {directory.mode}",
            f"stat -c '%F %U:%G %a' {directory.path}",
            f"directory {directory.user}:{directory.group} {mode}\n",
        )
    names = ours.variables
    values = {names.command: "true", names.timeout_secs: "9", names.run_as_root: "0"}
    for missing in values:
        rest = {key: value for key, value in values.items() if key != missing}
        yield await guest.refuses(missing, rest)
    for root in (False, True):
        async for row in guest.runs_jobs(as_root=root):
            yield row


class _Guest:
    def __init__(self, incus: Incus, plan: Plan) -> None:
        self._incus = incus
        self._plan = plan

    async def exec(self, *argv: str, stdin: bytes = b"") -> Completed:
        start = commands.collect(self._plan, list(argv))
        return await self._incus.run(*start, stdin=stdin, deadline_secs=CALL_SECS, check=False)

    async def says(self, subject: str, script: str, expected: str) -> Row:
        done = await self.exec("sh", "-c", script)
        said = done.stdout.decode("utf-8", "replace")
        seen = (said or done.stderr.decode("utf-8", "replace")).strip()
        return Row(subject, said == expected, seen)

    async def reset(self) -> None:
        # A guest is for one job; what the check leaves between two is the runner's own.
        ours = contract()
        await self.exec("rm", "-rf", ours.private, ours.log, ours.result)

    async def refuses(self, missing: str, rest: dict[str, str]) -> Row:
        await self.reset()
        variables = [f"{key}={value}" for key, value in rest.items()]
        done = await self.exec("env", *variables, contract().runner)
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        return Row(
            f"without {missing} the runner stops, and names it",
            done.exit_code != 0 and missing in said,
            f"exit code {done.exit_code}: {said[-200:]}",
        )

    async def runs_jobs(self, *, as_root: bool) -> AsyncIterator[Row]:
        who = "root" if as_root else contract().user.name
        probe = (
            'echo "$(id -u) $PWD $HOME"; cat probe; ! touch new 2>/dev/null;'
            ' touch /artifacts/x "$CARGO_HOME/x" "$CARGO_TARGET_DIR/x" "$HOME/x";'
            ' test -s "$SSL_CERT_FILE"; echo "<$odd>"; exit 7'
        )
        done, result = await self._job(probe, as_root=as_root, environment={"odd": "a 'b'\n$c"})
        home = "/root" if as_root else contract().user.home
        uid = 0 if as_root else contract().user.uid
        expected = f"{uid} /workspace/snapshot {home}\nprobe\n<a 'b'\n$c>\n"
        said = done.stdout.decode("utf-8", "replace")
        yield Row(f"a job of {who} sees its user, tree and environment", said.endswith(expected),
                  said[-300:])  # fmt: skip
        right = isinstance(result, GuestResult) and (result.status, result.exit_code) == (
            "failed",
            7,
        )
        yield Row(f"a job of {who} ends with its code, in the result too",
                  right and done.exit_code == 7, str(result))  # fmt: skip
        _, result = await self._job("sleep 60", as_root=as_root, timeout_secs=1)
        yield Row(f"a job of {who} that runs too long is timed_out",
                  isinstance(result, GuestResult) and result.status == "timed_out",
                  str(result))  # fmt: skip

    async def _job(
        self,
        command: str,
        *,
        as_root: bool,
        timeout_secs: int = 30,
        environment: dict[str, str] | None = None,
    ) -> tuple[Completed, GuestResult | str]:
        await self.reset()
        nonce = secrets.token_hex(8)
        plan = msgspec.structs.replace(
            self._plan,
            command=command,
            run_as_root=as_root,
            timeout_secs=timeout_secs,
            environment=environment or {},
            deadlines=msgspec.structs.replace(self._plan.deadlines, grace=1),
        )
        argv = commands.run(plan)
        try:
            done = await self._incus.run(
                *argv,
                stdin=commands.runner_stdin(plan, nonce),
                deadline_secs=CALL_SECS,
                check=False,
            )
        except DeadlinePassed as error:
            return Completed(tuple(argv), 1, b"", b""), error.brief
        shown = await self.exec("cat", contract().result)
        return done, parse_result(shown.stdout, nonce)


@asynccontextmanager
async def _guest(
    incus: Incus, host: Host, spec: JobSpec, tree: Path, fingerprint: str, owner: str
) -> AsyncIterator[tuple[Plan, Completed]]:
    """A throw-away guest with the tree as its snapshot."""
    plan = make_plan(
        spec,
        PlanContext(
            host=host,
            owner=owner,
            run="check",
            job=secrets.token_hex(8),
            name=spec.image,
            attempt=1,
            snapshot=str(tree),
            commit="",
            fingerprint=fingerprint,
            lease_ends=datetime.now(UTC) + LEASE,
        ),
    )
    plan = msgspec.structs.replace(
        plan, deadlines=msgspec.structs.replace(plan.deadlines, ready=READY_SECS)
    )
    try:
        await incus.run(
            *commands.create(plan),
            stdin=commands.create_document(plan),
            deadline_secs=plan.deadlines.create,
        )
        await incus.run(*commands.start(plan), deadline_secs=plan.deadlines.start)
        ready = await incus.run(
            *commands.wait_ready(plan), deadline_secs=READY_SECS + CALL_SECS, check=False
        )
        yield plan, ready
    finally:
        with trio.CancelScope(shield=True):
            await incus.run(
                *commands.delete(plan), deadline_secs=plan.deadlines.delete, check=False
            )
