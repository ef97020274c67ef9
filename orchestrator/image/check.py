"""Checks in a guest whether an image keeps the guest contract, row by row.

The rows are the promises in docs/guest-contract.md. Each is tried in a real guest; what the image
claims does not count.
"""

from __future__ import annotations

import io
import secrets
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.archive import LOG, RESULT, USAGE, collect_command
from orchestrator.attempt.boot import NotReady, boot
from orchestrator.attempt.plan import Plan, PlanContext, make_plan
from orchestrator.attempt.result import GuestResult
from orchestrator.contract import JOB_VARIABLES, contract
from orchestrator.hosts import LocalTrees, Tree, Trees
from orchestrator.image.store import ImageMissing, list_images
from orchestrator.image.trial import (
    LEASE,
    OWNER,
    READY_SECS,
    TrialGuest,
    sweep_trials,
    trial_guest,
)
from orchestrator.incus import Deadline, Host, Incus, stdin_of
from orchestrator.incus.instances import instance_status
from states.spec import InstanceType, JobSpec

ODD = "a 'b'\n$c \"d\""  # text that careless quoting would break
WRITABLE = (
    "/artifacts",
    "$HOME",
    "$CARGO_HOME",
    "$CARGO_TARGET_DIR",
    "$XDG_CACHE_HOME",
    "$XDG_STATE_HOME",
)

_TOUCHED = "pikaci-check"

# Reports what it sees, one line each. (Not `! touch`: bash's -e ignores its failure.)
_PROBE = f"""\
say() {{ echo "probe:$1=$2"; }}
say uid "$(id -u)"; say cwd "$PWD"; say probe "$(cat probe)"; say odd "${{odd//$'\\n'/|}}"
for name in HOME {" ".join(JOB_VARIABLES)}; do say "$name" "${{!name-}}"; done
for dir in {" ".join(f"'{path}'" for path in WRITABLE)}; do
  eval "path=$dir"
  if touch "$path/{_TOUCHED}" 2>&1; then say "$dir" written; else say "$dir" refused; fi
done
if touch new 2>&1; then say snapshot written; else say snapshot refused; fi
for name in SSL_CERT_FILE NIX_SSL_CERT_FILE; do
  if [[ -s ${{!name-}} ]]; then say "$name" there; else say "$name" missing; fi
done
say localhost "$(getent ahosts localhost 2>&1 | cut -d ' ' -f 1 | sort -u | tr '\n' ' ')"
if getent hosts "$(cat /proc/sys/kernel/hostname)"; then say name known; else say name unknown; fi
if touch /dev/shm/{_TOUCHED} 2>&1; then say /dev/shm written; else say /dev/shm refused; fi
if ! type git 2>&1 || git config --system --get-all safe.directory | grep -qx "$PWD"; then
  say .git accepted
else
  say .git refused
fi
exit 7
"""


# Each with the minor version that it came with.
_LATER_PROMISES = {
    "resolves localhost and its guest's name": (
        1,
        {"localhost": "127.0.0.1 ::1 ", "name": "known"},
    ),
    "has a /dev/shm of its own": (1, {"/dev/shm": "written"}),
    "can use the snapshot's .git": (2, {".git": "accepted"}),
}

_USAGE_SINCE = 3
_NEEDS_NONCE_SINCE = 4


class Row(msgspec.Struct, frozen=True):
    """One promise of the contract. If it is not kept, `found` says what was seen instead.

    `claimed` is False for a promise of a later minor version than the image claims to keep.
    """

    subject: str
    kept: bool
    found: str = ""
    claimed: bool = True

    @property
    def broken(self) -> bool:
        """Whether the image does not do what it claims."""
        return self.claimed and not self.kept


Tell = Callable[[Row], None]
_TREE = "image-check-1"  # the name of what is in it: another content needs another


async def check_image(
    incus: Incus,
    host: Host,
    alias: str,
    *,
    tell: Tell,
    owner: str = OWNER,
    ready_secs: int = READY_SECS,
    slow: int = 1,
    trees: Trees | None = None,
) -> None:
    """Try every promise, and `tell` the result of each. The guest is always deleted at the end.

    `owner` is the guest's `user.pikaci.owner` key; `ready_secs` is how long it may take to be
    ready, and to shut itself down. On a `slow` host, everything may take so many times as long.
    `trees` are those of the host, if it is not this machine. Raises `ImageMissing`, the errors of a
    delivery, or an `IncusError` if the guest cannot be created or deleted.
    """
    image = next((image for image in await list_images(incus) if image.is_called(alias)), None)
    if image is None:
        raise ImageMissing(
            f"there is no image {alias} in project {incus.project} of {incus.remote}",
            resolution="`pikaci image list` shows the images",
        )
    await sweep_trials(incus, owner)
    ours = contract()
    tell(
        Row(
            f"property {ours.image_property} is {ours.version}",
            image.contract == str(ours.version),
            f"it is {image.contract or 'not there'}",
        )
    )
    tell(
        Row(
            f"property {ours.minor_property} is {ours.minor}",
            image.minor >= ours.minor,
            f"it is {image.minor}",
            claimed=False,
        )
    )
    with tempfile.TemporaryDirectory(prefix="pikaci-check-") as directory:
        tree = Path(directory)
        tree.chmod(0o755)
        (tree / "probe").write_text("probe\n")
        (tree / ".git").mkdir()
        spec = JobSpec(command="true", image=alias, instance_type=InstanceType(image.type))
        ready_secs *= slow
        there, snapshot = trees or LocalTrees(), Tree(_TREE, tree)
        await there.deliver([snapshot], lease_secs=(LEASE * slow).total_seconds())
        place = there.place(snapshot)
        plan = _plan(host, spec, place, image.fingerprint, owner, ready_secs, slow)
        async with trial_guest(incus, plan, slow):
            try:
                await boot(incus, plan)
            except NotReady as error:
                tell(Row(f"ready within {ready_secs} s, with {ours.runner}", False, error.brief))
                return
            tell(Row(f"ready within {ready_secs} s, with {ours.runner}", True))
            await _try_promises(_Guest(incus, plan, image.minor, slow), tell)


async def _try_promises(guest: _Guest, tell: Tell) -> None:
    ours = contract()
    user = ours.user
    tell(
        await guest.says(
            f"user {user.name} is {user.uid}:{user.gid} ({user.group})",
            f"id -u {user.name}; id -g {user.name}; id -gn {user.name}",
            f"{user.uid}\n{user.gid}\n{user.group}\n",
        )
    )
    tell(await guest.leads_out())
    tell(
        await guest.says(
            f"{user.home} of {user.name}:{user.group}",
            f"stat -c '%F %U:%G' {user.home}",
            f"directory {user.name}:{user.group}\n",
        )
    )
    for directory in ours.directories:
        if directory.path in guest.plan.mounts:
            continue  # the mount hides it
        mode = directory.mode.lstrip("0")
        tell(
            await guest.says(
                f"{directory.path} of {directory.user}:{directory.group}, mode {directory.mode}",
                f"stat -c '%F %U:%G %a' {directory.path}",
                f"directory {directory.user}:{directory.group} {mode}\n",
            )
        )
    names = ours.variables
    values = {names.command: "true", names.timeout_secs: "9", names.run_as_root: "0"}
    for missing in values:
        rest = {key: value for key, value in values.items() if key != missing}
        tell(await guest.refuses(missing, rest))
    tell(await guest.needs_its_nonce(values))
    for root in (False, True):
        await guest.runs_jobs(tell, as_root=root)
    tell(await guest.collects())
    tell(await guest.ends_with_its_lease())  # last: it stops the guest


def _verdict(result: GuestResult | str) -> tuple[str, int] | None:
    return (result.status, result.exit_code) if isinstance(result, GuestResult) else None


class _Guest(TrialGuest):
    def __init__(self, incus: Incus, plan: Plan, minor: int, slow: int) -> None:
        super().__init__(incus, plan, slow)
        self._minor = minor

    async def says(self, subject: str, script: str, expected: str) -> Row:
        done = await self.exec("sh", "-c", script, prints=True)
        said = done.stdout.decode("utf-8", "replace")
        seen = (said or done.stderr.decode("utf-8", "replace")).strip()
        return Row(subject, said == expected, seen)

    async def refuses(self, missing: str, rest: dict[str, str]) -> Row:
        await self.reset()
        variables = [f"{key}={value}" for key, value in rest.items()]
        done = await self.exec("env", *variables, contract().runner)
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        return Row(
            f"without {missing} the runner stops and names it",
            done.exit_code != 0 and missing in said,
            f"exit code {done.exit_code}: {said[-200:]}",
        )

    async def needs_its_nonce(self, variables: dict[str, str]) -> Row:
        await self.reset()
        ours = contract()
        given = {**variables, ours.variables.needs_nonce: "1"}
        done = await self.exec("env", *(f"{k}={v}" for k, v in given.items()), ours.runner)
        there = await self.exec("ls", ours.result)
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        return Row(
            "with a stdin that is cut short the runner starts nothing",
            done.exit_code == commands.NOT_STARTED and there.exit_code != 0,
            f"exit code {done.exit_code}: {said[-200:]}",
            claimed=self._minor >= _NEEDS_NONCE_SINCE,
        )

    async def runs_jobs(self, tell: Tell, *, as_root: bool) -> None:
        user = contract().user
        uid, home, who = (0, "/root", "root") if as_root else (user.uid, user.home, user.name)
        promises = {
            "sees its user, tree and environment": {
                "uid": str(uid),
                "cwd": "/workspace/snapshot",
                "probe": "probe",
                "odd": ODD.replace("\n", "|"),
            },
            "has the variables of the contract": {"HOME": home, **JOB_VARIABLES},
            "can write to its directories": dict.fromkeys(WRITABLE, "written"),
            "cannot write to the snapshot": {"snapshot": "refused"},
            "finds certificates": dict.fromkeys(("SSL_CERT_FILE", "NIX_SSL_CERT_FILE"), "there"),
        }
        await self.reset()
        done, result = await self.job(_PROBE, as_root=as_root, environment={"odd": ODD})
        said = dict(
            line.removeprefix("probe:").partition("=")[::2]
            for line in done.stdout.decode("utf-8", "replace").splitlines()
            if line.startswith("probe:")
        )
        for promise, expected in promises.items():
            wrong = [f"{k} is {said.get(k)!r}" for k, v in expected.items() if said.get(k) != v]
            tell(Row(f"a job of {who} {promise}", not wrong, ", ".join(wrong)))
        left = await self.exec("sh", "-c", f"ls -d /dev/shm/{_TOUCHED}")
        said["/dev/shm"] = "still there" if left.exit_code == 0 else said.get("/dev/shm", "")
        for promise, (minor, expected) in _LATER_PROMISES.items():
            wrong = [f"{k} is {said.get(k)!r}" for k, v in expected.items() if said.get(k) != v]
            tell(
                Row(
                    f"a job of {who} {promise}",
                    not wrong,
                    ", ".join(wrong),
                    claimed=self._minor >= minor,
                )
            )
        ended = (done.exit_code, _verdict(result))
        tell(
            Row(
                f"a job of {who} ends with its exit code, also in the result",
                ended == (7, ("failed", 7)),
                f"exit code {done.exit_code}, {result}",
            )
        )
        await self.reset()
        _, result = await self.job("sleep 999", as_root=as_root, timeout_secs=1)
        tell(
            Row(
                f"a job of {who} past its timeout is timed_out",
                _verdict(result) == ("timed_out", 124),
                str(result),
            )
        )
        tell(
            Row(
                f"a job of {who} has a result that says what it used",
                isinstance(result, GuestResult) and result.usage is not None,
                str(result),
                claimed=self._minor >= _USAGE_SINCE,
            )
        )

    async def leads_out(self) -> Row:
        """The guest's end of a way out says hello, and listens."""
        ours = contract().egress
        # Its stdin must stay open: at the end of it, it takes the host for gone.
        script = (
            f"{{ sleep {self.slow} | {ours.program} carry {ours.port} 1 | tr -dc '[:print:]'; }}"
            " 2>&1;"
            f" : 3<>/dev/tcp/127.0.0.1/{ours.port} && echo ' listens'"
        )
        done = await self.exec("bash", "-c", script, prints=True)
        said = done.stdout.decode("utf-8", "replace")
        return Row(
            f"{ours.program} listens for a job with egress",
            '"fresh": true' in said and "listens" in said,
            (said + done.stderr.decode("utf-8", "replace")).strip()[:300],
            claimed=self._minor >= ours.since,
        )

    async def collects(self) -> Row:
        collect = collect_command((_TOUCHED,), want_log=True, max_log_bytes=self.plan.log_bytes)
        done = await self.exec(*collect, prints=True)
        try:
            with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
                names = {name.removeprefix("./") for name in archive.getnames()}
            found = f"collected: {', '.join(sorted(names))}"
        except tarfile.TarError:
            names, found = set(), f"no archive: {done.stderr.decode('utf-8', 'replace')}"
        return Row(
            "what a job left can be collected", names - {USAGE} == {RESULT, LOG, _TOUCHED}, found
        )

    async def ends_with_its_lease(self) -> Row:
        await self.reset()
        plan = msgspec.structs.replace(self.plan, command="sleep 60", timeout_secs=60)
        effect = commands.run(
            plan,
            secs=self._call_secs,
            stdin=stdin_of(lambda: commands.runner_stdin(plan, "none", {}, lease_secs=1)),
        )
        status, secs = "Running", self.plan.deadlines.ready_secs
        with trio.move_on_after(secs):
            await self.incus.perform(effect)
            while status != "Stopped":
                await trio.sleep(0.1)
                status = await instance_status(
                    self.incus, plan.instance, deadline=Deadline(self._call_secs)
                )
        return Row(
            "the guest shuts itself down when the runner's lease ends",
            status == "Stopped",
            f"{secs} s later it is {status.lower()}",
        )


def _plan(
    host: Host,
    spec: JobSpec,
    snapshot: str,
    fingerprint: str,
    owner: str,
    ready_secs: int,
    slow: int,
) -> Plan:
    """A plan for a throw-away guest, whose snapshot is at this place of its host."""
    assert isinstance(spec.image, str)
    now = datetime.now(UTC)
    plan = make_plan(
        spec,
        PlanContext(
            host=host,
            owner=owner,
            run="check",
            job=secrets.token_hex(8),
            name=spec.image,
            attempt=1,
            snapshot=snapshot,
            commit="",
            fingerprint=fingerprint,
            lease_ends=now + LEASE * slow,
            begun=now,
        ),
    )
    given = plan.deadlines
    deadlines = msgspec.structs.replace(
        given,
        create_secs=given.create_secs * slow,
        start_secs=given.start_secs * slow,
        ready_secs=ready_secs,
    )
    return msgspec.structs.replace(plan, deadlines=deadlines)
