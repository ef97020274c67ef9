"""Generates the parts of docs/ that come from the code.

These are the states' diagram and table, the job file's keys, the service's operations, the schemas
of the documents, the commands, and the man page. `--check` writes nothing: it names stale files and
exits with 1.

A page has its generated part between two markers; a schema, the commands and the man page are whole
files.
"""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from commands_page import commands_page
from jobfile_schema import job_file_schema
from manpage import man_page
from variables import variable_tables

from orchestrator.attempt import effects as commands
from orchestrator.attempt.effects import EGRESS_BYTES
from orchestrator.attempt.plan import PlanContext, make_plan
from orchestrator.contract import contract
from orchestrator.image.build import PACKAGES
from orchestrator.image.layer import BARE, SYSTEMD
from orchestrator.image.machine import VM
from orchestrator.incus import Effect, Host
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
from orchestrator.report import RunReport
from orchestrator.service.api.operations import OPERATIONS
from states import lease
from states.events import Written
from states.lifecycle import TABLE, TERMINAL, State
from states.rules import MIN_MEMORY, MIN_PROCESSES
from states.spec import IMAGE, Deadlines, JobSpec

FAULTS: dict[type[IncusError], str] = {
    DaemonUnreachable: "no daemon answers",
    AgentAway: "no agent answers",
    MemberOffline: "the member is offline",
    OutcomeUnknown: "the connection broke",
    InstanceBusy: "the instance is busy",
    InstanceRunning: "it was started meanwhile",
    GuestDiskFull: "its disk is full",
    AlreadyDone: "it is just being deleted",
}

BEGIN, END = "<!-- generated -->", "<!-- end -->"
DOCS = Path(__file__).resolve().parent
SCHEMAS: dict[str, Any] = {"job.json": JobSpec, "run.json": RunReport, "event.json": Written}
KEY_NOTES = {
    "command": "the shell command; runs in bash with `-eo pipefail`, from the workspace's root",
    "timeout_secs": "how long the command may take, in seconds",
    "run_as_root": "root in the guest, instead of the user `pikaci`",
    "writable_workspace": "`true` is rejected: the workspace is always read-only; see `scratch`",
    "description": "one line for people",
    "image": "an image's alias or fingerprint in the project, or `{ job = NAME }`",
    "instance_type": "`container` or `virtual-machine`, as the image is; see [vm.md](vm.md)",
    "cpus": "processors of the guest",
    "memory": "memory of the guest",
    "disk": "size of the guest's root disk",
    "processes": "processes and threads in the guest (containers)",
    "network": "`none`, or the name of an Incus network",
    "egress": 'hosts that the job may reach without a network: `["HOST", "*.HOST", "HOST:PORT"]`,'
    ' or `["*"]`; see [egress.md](egress.md)',
    "host_mirrors": "package indexes and mirrors as the host has them; see [egress.md](egress.md)",
    "log_bytes": "limit of the log; output beyond it is dropped",
    "scratch": "a throw-away writable copy of the workspace, at the same path",
    "env": "variables for the command; public, so no secrets",
    "secrets": 'variables from the host: `{ env = "NAME" }` or `{ file = "path" }`; see below',
    "artifacts": "globs below `/artifacts` of files to collect, however the job ends",
    "junit": "globs below `/artifacts` of test reports, which are collected too; see"
    " [tests.md](tests.md)",
    "workspace_deps": "host directory, or `{ job = NAME }`, at `/staged/linux-rust/workspace-deps`",
    "workspace_build": "the same, at `/staged/linux-rust/workspace-build`",
    "nix_store": "the same, at `/mnt/pikaci-nix-store`",
    "mounts": "additional read-only directories: `{ source = \"...\", path = \"...\" }`, where the"
    " source may be `{ job = NAME }`",
    "retries": "how often to retry after an infrastructure fault before the command's start",
    "priority": "queued jobs with a higher priority start first",
    "host": "the host that runs the job, by its name in the user's settings; see"
    " [hosts.md](hosts.md#several-hosts)",
    "needs": "jobs that must pass before this one starts; see [outputs.md](outputs.md)",
    "sources": "globs of the files that the job sees, and so depends on; all by default",
    "output": "what the job leaves for others: a directory of its guest, or `image` for the guest",
    "max_age_secs": "an older output is not reused",
    "keep": "`failure`: the guest of a job that fails stays for a while; `never`: it does not; see"
    " [shell.md](shell.md#keep-guests-from-the-job-file)",
    "keep_secs": "how long it stays, in seconds; an hour by default",
    "deadlines": "how long each step around the command may take; see below",
}  # fmt: skip
DEADLINE_NOTES = {
    "reset_secs": "emptying the artifact directory",
    "image_secs": "looking the image up",
    "create_secs": "creating the instance, and starting it (with `start_secs` more)",
    "start_secs": "starting it; then for a VM, until its agent answers",
    "ready_secs": "until runner and mounts are there in the guest",
    "grace_secs": "between TERM and KILL; at most 5 s for a cancellation",
    "run_margin_secs": "time beyond `timeout_secs` for the guest to report the command's end",
    "collect_secs": "fetching result, log and artifacts",
    "publish_secs": "fetching the job's output, or making an image of the guest",
    "delete_secs": "deleting the instance",
    "daemon_secs": "waiting for a daemon that does not answer, in any of these",
}  # fmt: skip


def diagram() -> str:
    """The table as a state diagram in Mermaid, and as a table."""
    lines = ["```mermaid", "stateDiagram-v2"]
    for trigger, sources, dest in TABLE:
        for source in sources:
            begin = "[*]" if source is State.NEW else source.value
            lines.append(f"    {begin} --> {dest.value}: {trigger}")
    lines += [f"    {state.value} --> [*]" for state in State if state in TERMINAL]
    lines += ["```", "", "| event | in the states | leads to |", "|---|---|---|"]
    for trigger, sources, dest in TABLE:
        shown = ", ".join(f"`{source.value}`" for source in sources)
        lines.append(f"| `{trigger}` | {shown} | `{dest.value}` |")
    return "\n".join(lines)


def lease_diagram() -> str:
    """The lease's table as a state diagram in Mermaid."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> intended: lease opened"]
    for event, sources, dest in lease.TABLE:
        lines += [f"    {source.value} --> {dest.value}: {event.value}" for source in sources]
    return "\n".join([*lines, "    gone --> [*]", "```"])


def effects() -> str:
    """What pikaci does in Incus for a job with default settings, and a way out."""
    context = PlanContext(
        host=Host(),
        owner="owner",
        run="run",
        job="job",
        name="job",
        attempt=1,
        snapshot="/snapshot",
        commit="",
        fingerprint="",
        lease_ends=datetime.fromtimestamp(0, UTC),
    )
    outputs = (None, "/artifacts/x", IMAGE)
    specs = [JobSpec(command="true", egress=("*",), output=output) for output in outputs]
    lines = [
        "| effect | deadline | set by | retried after | for | at most |",
        "|---|---|---|---|---|---|",
    ]
    seen = set()
    for spec in specs:
        for effect in commands.of(make_plan(spec, context)):
            if effect.name not in seen:
                seen.add(effect.name)
                lines.append(_effect_row(effect))
    return "\n".join(lines)


def _effect_row(effect: Effect) -> str:
    setting = " + ".join(f"`{name}`" for name in effect.deadline.settings)
    faults = ", ".join(FAULTS[kind] for kind in effect.retry.on)
    patience = f"{effect.retry.secs:g} s" if effect.retry.on else ""
    size = f"{effect.max_bytes >> 20:,} MiB" if effect.max_bytes < EGRESS_BYTES else ""
    cells = (f"`{effect.name}`", f"{effect.deadline.secs:g} s", setting, faults, patience, size)
    return f"| {' | '.join(cells)} |"


def layout() -> str:
    """The floors of the import contract, highest first, with the purpose of each room."""
    contracts = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())
    floors = next(
        c["layers"] for c in contracts["tool"]["importlinter"]["contracts"] if "layers" in c
    )
    lines = ["| floor | room | what it is for |", "|---|---|---|"]
    for number, floor in enumerate(floors):
        for module in floor.split(" | "):
            words = (importlib.import_module(module).__doc__ or "").strip().splitlines()[0]
            path = module.replace(".", "/")
            ending = "/" if (DOCS.parent / path).is_dir() else ".py"
            lines.append(f"| {len(floors) - number} | `{path}{ending}` | {words} |")
    return "\n".join(lines)


def keys() -> str:
    """The keys of a job, from the spec's own types, and those of its deadlines."""
    lines = [*_rows(JobSpec, KEY_NOTES), "", "The keys of `[jobs.NAME.deadlines]`:", ""]
    return "\n".join([*lines, *_rows(Deadlines, DEADLINE_NOTES)])


def _rows(kind: type[msgspec.Struct], notes: dict[str, str]) -> list[str]:
    schema = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
    assert set(notes) == set(get_type_hints(kind)), "a key has no note"
    lines = ["| key | type | default | allowed | what it is |", "|---|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        rules = schema[field.name]
        low, high = rules.get("minimum"), rules.get("maximum")
        allowed = f"{low} to {high}" if low is not None else ""
        if field.name == "processes":  # the door asks for more than what journals may hold
            allowed = f"{MIN_PROCESSES} to {high}"
        if field.name == "memory":
            allowed = f"`{MIN_MEMORY}` or more"
        elif "pattern" in rules and field.name in ("disk", "log_bytes"):
            allowed = "such as `512MiB`, `4GiB`"
        default = "required" if field.required else f"`{_toml(field)}`"
        lines.append(
            f"| `{field.name}` | {_type_name(rules)} | {default} | {allowed} |"
            f" {notes[field.name]} |"
        )
    return lines


def _toml(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return json.dumps(field.default_factory())
    value = msgspec.to_builtins(field.default)
    return "none" if value is None else json.dumps(value)


def _type_name(rules: dict[str, Any]) -> str:
    names = {"string": "string", "integer": "integer", "boolean": "boolean", "object": "table"}
    if "anyOf" in rules:
        rules = next(rule for rule in rules["anyOf"] if rule.get("type") != "null")
    if rules.get("$ref", "").endswith("/Deadlines"):
        return "table"
    return names.get(rules.get("type", "string"), "list")


def contract_table() -> str:
    """The contract's directories, devices and variables."""
    ours = contract()
    lines = ["| directory | owner | mode |", "|---|---|---|"]
    lines += [f"| `{d.path}` | {d.user}:{d.group} | {d.mode} |" for d in ours.directories]
    lines += ["", "| device | guest path |", "|---|---|"]
    devices = {**ours.devices, ours.certificates.device: ours.certificates.path}
    lines += [f"| `{device}` | `{path}` |" for device, path in devices.items()]
    lines += ["", "| variable | what it is |", "|---|---|"]
    notes = {
        "command": "the shell command, byte for byte",
        "timeout_secs": "how long it may take",
        "run_as_root": "`1` or `0`",
        "staged_nix_store": "set for the job, by the runner, if the store's directory is there",
        "needs_nonce": "`1`: start nothing unless the nonce has come on stdin (1.4)",
    }
    lines += [f"| `{getattr(ours.variables, key)}` | {note} |" for key, note in notes.items()]
    notes = {
        "grace_secs": "seconds between TERM and KILL",
        "lease_secs": "seconds until the guest shuts itself down, whatever runs then; 0: never",
        "scratch": "`1`: an overlay of the snapshot at its own path",
        "log_bytes": "the log's limit, in bytes; 0: none",
        "output": "a directory to make for the job's user",
        "nonce": "goes into the result; comes last",
    }
    lines += ["", "| name on stdin | what it is |", "|---|---|"]
    lines += [f"| `{getattr(ours.stdin, key)}` | {note} |" for key, note in notes.items()]
    return "\n".join(lines)


def packages() -> str:
    """The packages of the Debian images."""
    kinds = {
        "all": PACKAGES,
        BARE.alias: BARE.packages,
        SYSTEMD.alias: SYSTEMD.packages,
        VM.alias: VM.packages,
    }
    lines = ["| image | packages |", "|---|---|"]
    for name, names in kinds.items():
        shown = ", ".join(f"`{package}`" for package in names)
        lines.append(f"| {name if name == 'all' else f'`{name}`'} | {shown} |")
    return "\n".join(lines)


def operations() -> str:
    """The service's operations."""
    lines = ["| | | what it is |", "|---|---|---|"]
    for operation in OPERATIONS:
        path = operation.path.replace(":path}", "}")
        lines.append(f"| `{operation.method}` | `{path}` | {operation.summary} |")
    return "\n".join(lines)


BLOCKS = {
    "states.md": diagram,
    "lease.md": lease_diagram,
    "effects.md": effects,
    "layout.md": layout,
    "images.md": packages,
    "job-file.md": keys,
    "guest-contract.md": contract_table,
    "service.md": operations,
    "environment.md": variable_tables,
}


def generated() -> dict[Path, str]:
    """Every file with generated parts, as it should be."""
    made = {}
    for name, block in BLOCKS.items():
        path = DOCS / name
        before, rest = path.read_text().split(BEGIN)
        made[path] = f"{before}{BEGIN}\n{block()}\n{END}{rest.split(END)[1]}"
    for name, kind in SCHEMAS.items():
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **msgspec.json.schema(kind),
        }
        made[DOCS / "schema" / name] = _json(schema)
    notes = {JobSpec.__name__: KEY_NOTES, Deadlines.__name__: DEADLINE_NOTES}
    made[DOCS / "schema" / "pikaci.json"] = _json(job_file_schema(notes))
    made[DOCS / "pikaci.1"] = man_page()
    made[DOCS / "commands.md"] = commands_page()
    return made


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2) + "\n"


def main() -> int:
    """Write or check all generated parts."""
    check = "--check" in sys.argv[1:]
    stale = [
        (path, text)
        for path, text in generated().items()
        if not path.exists() or path.read_text() != text
    ]
    for path, text in stale:
        if check:
            print(f"{path.name} is stale: run `make docs`")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
