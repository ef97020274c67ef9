"""The effects of a job in Incus, made from its plan. Pure.

How long each may take, how much it may print, and when it is retried is decided only here. What
runs in the guest is in `guest_scripts`, `clean` and the image's runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeGuard

import msgspec

from orchestrator.attempt.clean import clean_command
from orchestrator.attempt.guest_scripts import (
    GUEST_PATH,
    NOT_BOOTED,
    NOT_READY,
    pack_tree,
    wait_until_ready,
)
from orchestrator.attempt.plan import Plan
from orchestrator.contract import contract
from orchestrator.incus.effect import (
    NEVER,
    SHORT_BYTES,
    SILENT_TRIES,
    Deadline,
    Effect,
    Retry,
    Stdin,
    request,
    stdin_of,
)
from orchestrator.incus.errors import (
    AgentAway,
    AlreadyDone,
    DaemonUnreachable,
    GuestDiskFull,
    IncusError,
    InstanceBusy,
    InstanceRunning,
    MemberOffline,
    OutcomeUnknown,
)
from states.guest_paths import ARTIFACTS
from states.spec import IMAGE, InstanceType

NOT_STARTED = 75  # of a start of the runner whose stdin was cut short

# A cancelled create gets this long to finish, so that no instance appears unnoticed later.
ANSWER_SECS = 10.0
HURRIED_SECS = 2.0  # the same for someone who wants no grace period
READY_CALL_SECS = 30.0  # for the exec around the wait in the guest
CANCEL_CALL_SECS = 5.0  # for the exec around the runner's grace period
# For a stopped guest: its files are pulled one by one, and one may be a pipe.
PULL_LOG_SECS = 60.0
PULL_RESULT_SECS = 10.0
STATUS_SECS = 10.0
CLEAN = "user.pikaci.clean"  # of an instance whose guest was made new
CLEAN_SECS = 120.0  # a disk may be full of small files
# Output bounds. The log's copy has its own, lower bound; an archive also holds the log, if wanted;
# a monitor reports on the whole project.
LOG_BYTES = 1 << 40
ARCHIVE_BYTES = (1 << 30) + (64 << 20)
MONITOR_BYTES = 64 << 20
EGRESS_BYTES = 1 << 62  # what a job sends to the outside: as much as it likes

# Errors to retry. A call that must not run twice is retried only if it reached no daemon.
AWAY = (DaemonUnreachable,)
AWAY_OR_UNKNOWN = (DaemonUnreachable, OutcomeUnknown)
# An exec in a VM goes through its agent, which may be restarting. And where the command may run, a
# cluster's member that is offline is waited for: its guests may be well.
EXEC_AWAY = (DaemonUnreachable, AgentAway, MemberOffline)
EXEC_AWAY_OR_UNKNOWN = (*EXEC_AWAY, OutcomeUnknown)


def create(plan: Plan, *, stdin: Stdin | None = None) -> Effect:
    """Create the instance, with all its devices, and start it: one request to the daemon.

    `stdin` gives its `create_document`. If the start fails, the instance stays, stopped.
    """
    d = plan.deadlines
    vm = ["--vm"] if plan.instance_type is InstanceType.VIRTUAL_MACHINE else []
    target = [f"--target={plan.member}"] if plan.member else []
    # No profiles, or the guest would get devices of the default profile. An empty list in the
    # document does not prevent that; the flag does.
    image = f"{plan.host.remote}:{plan.fingerprint}"
    return Effect(
        name="create",
        args=("launch", "--quiet", "--no-profiles", *vm, *target, image, _instance(plan)),
        deadline=Deadline(d.create_secs + d.start_secs, ("create_secs", "start_secs")),
        retry=_patient(plan, AWAY),
        answer_secs=ANSWER_SECS,
        stdin=stdin or stdin_of(lambda: create_document(plan)),
    )


def create_document(plan: Plan) -> bytes:
    """The instance as YAML (JSON is valid YAML), for the create command's stdin."""
    return msgspec.json.encode(
        {
            "description": plan.description,
            "config": plan.config,
            "devices": plan.devices,
        }
    )


def hot_plug(plan: Plan, change: Mapping[str, Any], *, stdin: Stdin | None = None) -> Effect:
    """Make a warm guest the job's own: one request brings it all its devices, while it runs.

    `change` is what a job's guest has, and a warm one has not (`warm.change`). Incus carries out
    all of it or nothing, and it may be asked twice. It reads no `stdin`, which is awaited before
    each try.
    """
    effect = request(
        _path(plan),
        method="PATCH",
        body=change,
        deadline=Deadline(plan.deadlines.start_secs, ("start_secs",)),
        retry=_patient(plan, (*AWAY_OR_UNKNOWN, InstanceBusy)),
        max_bytes=SHORT_BYTES,
    )
    return replace(effect, name="hot-plug", stdin=stdin)


def monitor(plan: Plan) -> Effect:
    """Print the project's events, one per line, until killed."""
    d = plan.deadlines
    return Effect(
        name="monitor",
        args=("monitor", "--type=lifecycle", "--format=json", f"{plan.host.remote}:"),
        deadline=Deadline(start(plan).longest_secs + ready(plan).longest_secs + d.start_secs),
        max_bytes=MONITOR_BYTES,
        exit_codes=None,
    )


def start(plan: Plan, *, stdin: Stdin | None = None) -> Effect:
    """Start an instance that was left stopped, or perhaps started.

    It reads no `stdin`, which is awaited before each try.
    """
    return Effect(
        name="start",
        args=("start", "--quiet", _instance(plan)),
        deadline=Deadline(plan.deadlines.start_secs, ("start_secs",)),
        retry=_patient(plan, AWAY),
        stdin=stdin,
    )


def ready(plan: Plan) -> Effect:
    """Wait, in the guest, until the runner is there and every planned mount is mounted.

    The guest's end of a way out listens then: what comes before its host's end waits.
    """
    return _exec(
        plan,
        "ready",
        _wait(plan),
        deadline=Deadline(longest_wait(plan), ("ready_secs",)),
        retry=_patient(plan, AWAY_OR_UNKNOWN),
        exit_codes=frozenset({0, NOT_READY, NOT_BOOTED}),
    )


def longest_wait(plan: Plan) -> float:
    """Seconds that the readiness wait may take, with the exec around it."""
    return plan.deadlines.ready_secs + READY_CALL_SECS


def _wait(plan: Plan) -> tuple[str, ...]:
    listen = " ".join(_guest_end(plan, "listen")) if plan.egress else ""
    return wait_until_ready(plan.deadlines.ready_secs, listen, plan.mounts)


def run(plan: Plan, stdin: Stdin, *, secs: float | None = None, wait: bool = False) -> Effect:
    """Start the runner with its three variables, and follow the log to the command's end.

    A client that dies may leave the runner an empty stdin: it starts nothing without the nonce.
    `stdin` returns `runner_stdin`. `secs` is what is left of the plan's `run_deadline_secs`, None
    for all of it. With `wait` the exec is that of `ready` first: `stdin` is awaited while it runs,
    and its output begins with `IS_READY` when the guest is ready.
    """
    names = contract().variables
    variables = (
        f"{names.command}={plan.command}",
        f"{names.timeout_secs}={plan.timeout_secs}",
        f"{names.run_as_root}={1 if plan.run_as_root else 0}",
    )
    deadline = _run_deadline(plan, secs)
    if wait:
        settings = ("ready_secs", *deadline.settings)
        deadline = Deadline(longest_wait(plan) + deadline.secs, settings)
    return _exec(
        plan,
        "run",
        ((*_wait(plan), "--") if wait else ()) + ("env", *variables, contract().runner),
        deadline=deadline,
        max_bytes=LOG_BYTES,
        stdin=stdin,
        starts_first=wait,
        env={names.needs_nonce: "1"},
        follows=True,
    )


def way_out(plan: Plan) -> Effect:
    """Carry the guest's connections to its proxy's port over stdin and stdout, until killed."""
    return _exec(
        plan,
        "egress",
        _guest_end(plan, "carry"),
        deadline=_run_deadline(plan, None),
        max_bytes=EGRESS_BYTES,
    )


def _guest_end(plan: Plan, verb: str) -> tuple[str, ...]:
    ours = contract().egress
    return (ours.program, verb, str(ours.port), str(plan.deadlines.daemon_secs))


def runner_stdin(plan: Plan, nonce: str, secrets: Mapping[str, str], *, lease_secs: int) -> bytes:
    """The runner's stdin: the job's secrets and environment, and the runner's settings.

    After `lease_secs` the guest shuts itself down. The nonce comes last: it tells the runner that
    nothing was cut off.
    """
    names = contract().stdin
    pairs = {
        **secrets,
        **plan.environment,
        names.grace_secs: str(plan.deadlines.grace_secs),
        names.lease_secs: str(lease_secs),
        names.scratch: "1" if plan.scratch else "0",
        names.log_bytes: str(plan.log_bytes),
        **({names.output: plan.output} if needs_directory(plan.output) else {}),
        names.nonce: nonce,
    }
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs.items())


def needs_directory(output: str | None) -> TypeGuard[str]:
    """Whether the runner makes the directory of an output; below /artifacts the job does."""
    return output is not None and output != IMAGE and not output.startswith(f"{ARTIFACTS}/")


def follow(plan: Plan, offset: int, *, secs: float | None = None) -> Effect:
    """Follow the log of the job that `run` started, from byte `offset`."""
    return _exec(
        plan,
        "follow",
        (contract().runner, "follow", str(offset)),
        deadline=_run_deadline(plan, secs),
        max_bytes=LOG_BYTES,
        follows=True,
    )


def cancel(plan: Plan, *, now: bool = False) -> Effect:
    """Have the runner stop the job: TERM, a grace period unless `now`, KILL."""
    return _exec(
        plan,
        "cancel",
        (contract().runner, "cancel", *(["now"] if now else [])),
        deadline=Deadline(plan.deadlines.grace_secs + CANCEL_CALL_SECS),
        exit_codes=frozenset({0}),
    )


def collect(plan: Plan, guest_command: list[str], *, log_bytes: int = 0) -> Effect:
    """Run the command that prints a tar archive in the guest.

    `log_bytes` is the most that a log in the archive may have. Even an empty archive prints an end
    mark, so a command that printed nothing has lost its output, and is retried.
    """
    return _exec(
        plan,
        "collect",
        tuple(guest_command),
        deadline=Deadline(plan.deadlines.collect_secs, ("collect_secs",)),
        retry=_patient(plan, EXEC_AWAY_OR_UNKNOWN, silent_tries=SILENT_TRIES),
        max_bytes=ARCHIVE_BYTES + log_bytes,
    )


def fetch_tree(plan: Plan) -> Effect:
    """Print a tar archive of the directory that is the job's output.

    tar follows no link of the tree, and writes each name of a file that has several as a file.
    """
    assert plan.output is not None
    return _exec(
        plan,
        "publish",
        pack_tree(plan.output),
        deadline=Deadline(plan.deadlines.publish_secs, ("publish_secs",)),
        retry=_patient(plan, EXEC_AWAY_OR_UNKNOWN, silent_tries=SILENT_TRIES),
        # Each entry has a header, and long names have more.
        max_bytes=plan.output_bytes + ARCHIVE_BYTES,
    )


def clean(plan: Plan) -> Effect:
    """Make the guest new, and print its size, before it becomes an image. It may run twice."""
    return _exec(
        plan,
        "clean",
        clean_command(plan),
        deadline=Deadline(CLEAN_SECS),
        retry=Retry(silent_tries=SILENT_TRIES),
    )


def mark_clean(plan: Plan) -> Effect:
    """Note on the instance that its guest is new: after a crash it need not be started again."""
    return request(
        _path(plan),
        method="PATCH",
        body={"config": {CLEAN: "true"}},
        deadline=Deadline(STATUS_SECS),
        max_bytes=SHORT_BYTES,
    )


def stop(plan: Plan) -> Effect:
    """Stop the guest by force: the contents of an image come from a guest that has stopped."""
    return Effect(
        name="stop",
        args=("stop", "--quiet", "--force", _instance(plan)),
        deadline=Deadline(plan.deadlines.delete_secs, ("delete_secs",)),
        retry=Retry(on=(InstanceBusy, GuestDiskFull), secs=plan.deadlines.daemon_secs),
    )


def publish_image(plan: Plan, properties: Mapping[str, str]) -> Effect:
    """Make an image of the stopped guest, with these properties.

    Uncompressed: compressing takes longer than all the rest, and images stay on this host.
    """
    pairs = (f"{key}={value}" for key, value in properties.items())
    remote = f"{plan.host.remote}:"
    return Effect(
        name="publish image",
        args=("publish", "--quiet", "--compression", "none", _instance(plan), remote, *pairs),
        deadline=Deadline(plan.deadlines.publish_secs, ("publish_secs",)),
    )


def guest_command(
    plan: Plan,
    argv: tuple[str, ...],
    *,
    secs: float,
    prints: bool = False,
    stdin: Stdin | None = None,
) -> Effect:
    """Run any command in the guest. One that always `prints` is retried if its output is empty."""
    return _exec(
        plan,
        "exec",
        argv,
        deadline=Deadline(secs),
        retry=Retry(silent_tries=SILENT_TRIES) if prints else NEVER,
        stdin=stdin,
    )


def pull_result(plan: Plan) -> Effect:
    """Print the result file of a guest that may have stopped."""
    return _pull(plan, contract().result, PULL_RESULT_SECS, SHORT_BYTES)


def pull_log(plan: Plan, guest_path: str) -> Effect:
    """Print a log of a guest that may have stopped."""
    return _pull(plan, guest_path, PULL_LOG_SECS, LOG_BYTES)


def delete(plan: Plan) -> Effect:
    """Stop the instance by force, and delete it."""
    return delete_instance(
        _instance(plan),
        deadline=Deadline(plan.deadlines.delete_secs, ("delete_secs",)),
        daemon_secs=plan.deadlines.daemon_secs,
    )


def delete_instance(instance: str, *, deadline: Deadline, daemon_secs: float) -> Effect:
    """Stop an instance by force and delete it; its name includes the remote.

    Retries while the daemon is down, the instance is still being created or
    deleted, or its disk is full, and when it was started after it was stopped.
    """
    return Effect(
        name="delete",
        args=("delete", "--quiet", "--force", instance),
        deadline=deadline,
        retry=Retry(
            on=(*AWAY_OR_UNKNOWN, InstanceBusy, InstanceRunning, AlreadyDone, GuestDiskFull),
            secs=daemon_secs,
        ),
    )


def hand_over(plan: Plan) -> list[Effect]:
    """Have Incus delete the running instance by itself: its guest stops, and it is ephemeral.

    It is not so from the start: a guest that powers off would take its result with it. Incus has
    accepted the stop when the last one ends; neither is tried again, since a delete can follow.
    None for a guest that the job stops itself.
    """
    if plan.output == IMAGE:
        return []
    path = f"{plan.host.remote}:/1.0/instances/{plan.instance}"
    project = f"?project={plan.host.project}"
    asked: list[tuple[str, str, str, object]] = [
        ("make ephemeral", "PATCH", path + project, {"ephemeral": True}),
        ("stop ephemeral", "PUT", f"{path}/state{project}", {"action": "stop", "force": True}),
    ]
    return [
        replace(
            request(path, method=method, body=body, deadline=Deadline(STATUS_SECS)),
            name=name,
            max_bytes=SHORT_BYTES,
        )
        for name, method, path, body in asked
    ]


def of(plan: Plan) -> list[Effect]:
    """Every effect that the plan may need, in order."""
    return [
        create(plan),
        hot_plug(plan, {}),
        monitor(plan),
        start(plan),
        ready(plan),
        *([way_out(plan)] if plan.egress else []),
        run(plan, stdin=stdin_of(bytes), wait=True),
        run(plan, stdin=stdin_of(bytes)),
        follow(plan, 0),
        cancel(plan),
        cancel(plan, now=True),
        collect(plan, []),
        pull_result(plan),
        pull_log(plan, contract().log),
        *publish(plan),
        *hand_over(plan),
        delete(plan),
    ]


def publish(plan: Plan) -> list[Effect]:
    """The effects that publish the job's output, in order; none if it has no output."""
    if plan.output is None:
        return []
    if plan.output == IMAGE:
        return [clean(plan), mark_clean(plan), stop(plan), publish_image(plan, {})]
    return [fetch_tree(plan)]


def _run_deadline(plan: Plan, secs: float | None) -> Deadline:
    return Deadline(plan.run_deadline_secs if secs is None else secs, ("run_margin_secs",))


def _patient(plan: Plan, on: tuple[type[IncusError], ...], *, silent_tries: int = 1) -> Retry:
    return Retry(on=on, secs=plan.deadlines.daemon_secs, silent_tries=silent_tries)


def _instance(plan: Plan) -> str:
    return f"{plan.host.remote}:{plan.instance}"


def _path(plan: Plan) -> str:
    return f"{plan.host.remote}:/1.0/instances/{plan.instance}?project={plan.host.project}"


def _exec(
    plan: Plan,
    name: str,
    guest_argv: tuple[str, ...],
    *,
    deadline: Deadline,
    retry: Retry = NEVER,
    max_bytes: int = SHORT_BYTES,
    exit_codes: frozenset[int] | None = None,
    stdin: Stdin | None = None,
    starts_first: bool = False,
    env: Mapping[str, str] = MappingProxyType({}),
    follows: bool = False,
) -> Effect:
    variables = [f"--env={key}={value}" for key, value in {"PATH": GUEST_PATH, **env}.items()]
    # No terminal. Always `--`: options after it belong to the command.
    exec_ = ("exec", "--force-noninteractive", *variables, _instance(plan), "--")
    return Effect(
        name=name,
        args=(*exec_, *guest_argv),
        deadline=deadline,
        retry=retry,
        max_bytes=max_bytes,
        exit_codes=exit_codes,
        follows=follows,
        stdin=stdin,
        starts_first=starts_first,
    )


def _pull(plan: Plan, guest_path: str, secs: float, max_bytes: int) -> Effect:
    return Effect(
        name="pull",
        args=("file", "pull", "--quiet", f"{_instance(plan)}{guest_path}", "-"),
        deadline=Deadline(secs),
        max_bytes=max_bytes,
    )
