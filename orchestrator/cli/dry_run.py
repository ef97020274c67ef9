"""`pikaci run --dry-run`: the plan and the very commands, with nothing made or touched.

Incus is asked how large the host is, as the plan depends on it, and for its images and networks.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import click
import msgspec
import trio

from orchestrator.attempt import effects as commands
from orchestrator.attempt.archive import collect_command
from orchestrator.attempt.evidence import most_kept
from orchestrator.attempt.id_map import local_id_range
from orchestrator.attempt.plan import Plan, PlanContext, lease_secs, make_plan
from orchestrator.attempt.secrets import described
from orchestrator.cli.documents import PlannedCall, PlannedJob
from orchestrator.cli.output import print_items
from orchestrator.errors import UsageError
from orchestrator.hosts import HostChoice, Tree, Trees, open_hosts
from orchestrator.image.store import Images
from orchestrator.incus import LOCAL, Host, stdin_of
from orchestrator.incus.errors import DaemonUnreachable, HostRefused, IncusMissing
from orchestrator.job.host_names import check_host_names
from orchestrator.job.host_size import HostSizes, Lowered
from orchestrator.job.submission import Judged, Request, judge, part_of
from orchestrator.mount_points import hidden_mounts
from orchestrator.settings import incus_to_look, open_incus
from orchestrator.state_root import StateRoot
from orchestrator.terminal import plain, plain_lines
from states.graph import resolved
from states.outcome import EXIT_CODES, Verdict
from states.spec import InstanceType, JobSpec, keep_secs

# When a dry run's jobs are made, and their runners start: no time passes.
BEGAN = datetime.fromtimestamp(0, UTC)


def print_plans(
    request: Request,
    root: StateRoot,
    *,
    choice: HostChoice,
    keep: float,
    wait_deleted: bool,
    output: str,
) -> int:
    """Print every job's plan, for the first of its hosts.

    Values that only a real run knows are in angle brackets.

    `keep` is how long a guest is kept for debugging if its spec does not say, in seconds, `output`
    the form. Of several jobs nobody knows which is the last, whose delete may be left to Incus.
    """
    judged = judge(request, choice)
    for name, error in judged.refused.items():
        raise UsageError(
            f"{name}: {error.headline}", details=error.details, resolution=error.resolution
        )
    judged, lowered, trees = trio.run(_ask, judged, root)
    for warning in lowered | hidden_mounts(judged.request.specs):
        click.echo(f"warning: {plain(warning)}", err=True)
    hand_over = len(judged.request.specs) == 1 and not wait_deleted
    planned = [
        _planned(
            name,
            _plan(name, spec, root, host, trees[host], _lease(spec, keep)),
            hand_over=hand_over,
        )
        for name, spec in judged.request.specs.items()
        for host in judged.hosts[name][:1]
    ]
    if not print_items(output, planned):
        for job in planned:
            text = _shown(job)
            click.echo(plain_lines(text) if sys.stdout.isatty() else text)
    return EXIT_CODES[Verdict.PASSED]


def _lease(spec: JobSpec, keep: float) -> timedelta:
    return timedelta(seconds=lease_secs(spec) + (keep_secs(spec, keep) or 0))


async def _ask(judged: Judged, root: StateRoot) -> tuple[Judged, Lowered, dict[Host, Trees]]:
    """What a submission asks Incus. Without an Incus the plan is printed too."""
    specs, lowered = dict(judged.request.specs), dict(judged.told)
    trees: dict[Host, Trees] = {}
    with incus_to_look(Host(), root) as incus:
        async with open_hosts(incus) as hosts:
            for host in dict.fromkeys(first for first, *_ in judged.hosts.values()):
                there = hosts.at(host.name)
                trees[host] = there.trees
                part = part_of(
                    judged, [n for n, (first, *_) in judged.hosts.items() if first == host]
                )
                with suppress(DaemonUnreachable, HostRefused, IncusMissing):
                    await check_host_names(
                        Images(there.incus), part.request.specs, git=part.request.git
                    )
                fitted, lines = await HostSizes(there.incus, host).fit(part)
                specs.update(fitted.request.specs)
                lowered.update(lines)
    return replace(judged, request=replace(judged.request, specs=specs)), lowered, trees


def _plan(
    name: str, spec: JobSpec, root: StateRoot, host: Host, trees: Trees, lease: timedelta
) -> Plan:
    context = PlanContext(
        host=host,
        owner="<owner>",
        run="<run>",
        job="<job>",
        name=name,
        attempt=1,
        snapshot=trees.place(Tree("<hash>", root.snapshots / "<hash>")),
        commit="<commit>",
        fingerprint="<fingerprint>",
        lease_ends=BEGAN + lease,
        begun=BEGAN,
        ids=local_id_range(LOCAL) if host.is_local else None,
        certificates=trees.place(Tree("certificates-<hash>", root.certificates)),
    )
    plan = make_plan(resolved(spec, {}), context)
    placeholders = {"user.pikaci.deadline": "<deadline>", "user.pikaci.begun": "<now>"}
    if plan.has_own_ids:
        placeholders["security.idmap.base"] = "<first id>"
    return msgspec.structs.replace(
        plan,
        instance="<instance>",
        config=plan.config | placeholders,
    )


def _planned(name: str, plan: Plan, *, hand_over: bool = False) -> PlannedJob:
    incus = open_incus(plan.host)
    calls = [
        commands.create(plan),
        *([] if plan.instance_type is InstanceType.CONTAINER else [commands.monitor(plan)]),
        commands.run(plan, stdin=stdin_of(bytes), wait=True),
        *([commands.way_out(plan)] if plan.egress else []),
        commands.collect(
            plan, collect_command(plan.artifacts, want_log=False, max_log_bytes=most_kept(plan))
        ),
        *commands.publish(plan),
        *((hand_over and commands.hand_over(plan)) or [commands.delete(plan)]),
    ]
    placeholders = {key: f"<{described(source)}>" for key, source in plan.secrets.items()}
    stdin = commands.runner_stdin(
        plan, "<nonce>", placeholders, lease_secs=plan.lease_left_secs(BEGAN)
    )
    return PlannedJob(
        name=name,
        image=plan.image,
        timeout_secs=plan.timeout_secs,
        instance=msgspec.Raw(commands.create_document(plan)),
        calls=tuple(
            PlannedCall(effect=call.name, argv=incus.argv(call), deadline_secs=call.deadline.secs)
            for call in calls
        ),
        runner_stdin=tuple(stdin.decode().split("\0")[:-1]),
    )


def _shown(job: PlannedJob) -> str:
    create, *rest = [shlex.join(call.argv) for call in job.calls]
    stdin = "".join(f"{pair}\\0" for pair in job.runner_stdin)
    lines = [
        f"# {job.name}: image {job.image}, at most {job.timeout_secs} s",
        f"{create} <<'EOF'",
        msgspec.json.format(bytes(job.instance)).decode(),
        "EOF",
        *rest,
        f"# on the runner's stdin: {stdin}",
    ]
    return "\n".join(lines) + "\n"
