"""The six incus commands of a job, made from its plan, and a VM's seventh. Pure.

Each function gives the arguments for `Incus.run`, without the program and the project.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from orchestrator.contract import contract
from orchestrator.plan import Plan
from states.spec import InstanceType

NOT_READY = 75  # the readiness wait's own exit code (EX_TEMPFAIL)
NOT_BOOTED = 127  # no command of the wait's is found: at first, a NixOS guest has not even a shell

# Where a command's programs are, as the runner has it for its job. Incus's own default leaves the
# last out, where NixOS has them all, in a VM and in a container that is only just booting.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"

# Runs in the guest, as arguments of sh: nothing is written there. A guest with an init system
# makes the runner's directory at boot, so the wait for it must be in the guest: one exec, and
# no polling by the host. At the deadline it prints what is missing.
_READY_SCRIPT = """\
command -v mountpoint >/dev/null || exit 127
end=$(( $(date +%s) + $1 )); runner=$2; shift 2
while :; do
  missing=
  [ -x "$runner" ] || missing="the runner $runner"
  for path; do
    mountpoint -q "$path" || missing="${missing:-the mount $path}"
  done
  [ -n "$missing" ] || exit 0
  [ "$(date +%s)" -lt "$end" ] || { printf '%s' "$missing"; exit 75; }
  sleep 0.02
done"""


def create_document(plan: Plan) -> bytes:
    """The instance as YAML (of which JSON is a part) for the create command's stdin."""
    return msgspec.json.encode(
        {
            "description": plan.description,
            "config": plan.config,
            "devices": plan.devices,
        }
    )


def create(plan: Plan) -> list[str]:
    """Create the instance, stopped, with all its devices; `create_document` goes to stdin."""
    vm = ["--vm"] if plan.instance_type is InstanceType.VIRTUAL_MACHINE else []
    # No profile, or a device of somebody's default one would be in the guest: an empty list in
    # the document does not say so, the flag does.
    image = f"{plan.host.remote}:{plan.fingerprint}"
    return ["create", "--quiet", "--no-profiles", *vm, image, _instance(plan)]


def monitor(plan: Plan) -> list[str]:
    """Print what happens in the project, an event a line, until it is ended."""
    return ["monitor", "--type=lifecycle", "--format=json", f"{plan.host.remote}:"]


def start(plan: Plan) -> list[str]:
    """Start the instance."""
    return ["start", "--quiet", _instance(plan)]


def wait_ready(plan: Plan) -> list[str]:
    """Wait, in the guest, until the runner is there and every planned mount is mounted."""
    wait = ["sh", "-c", _READY_SCRIPT, "pikaci-ready", str(plan.deadlines.ready_secs)]
    return [*_exec(plan), *wait, contract().runner, *plan.mounts]


def run(plan: Plan) -> list[str]:
    """Start the runner with its three variables, and follow the log to the command's end."""
    names = contract().variables
    return [
        *_exec(plan),
        "env",
        f"{names.command}={plan.command}",
        f"{names.timeout_secs}={plan.timeout_secs}",
        f"{names.run_as_root}={1 if plan.run_as_root else 0}",
        contract().runner,
    ]


def runner_stdin(plan: Plan, nonce: str, secrets: Mapping[str, str], *, lease_secs: int) -> bytes:
    """What `run` feeds to the runner: the job's secrets and environment, and its own settings.

    In `lease_secs` the guest turns itself off. The nonce comes last: by it the runner knows that
    nothing was cut off.
    """
    names = contract().stdin
    pairs = {
        **secrets,
        **plan.environment,
        names.grace_secs: str(plan.deadlines.grace_secs),
        names.lease_secs: str(lease_secs),
        names.scratch: "1" if plan.scratch else "0",
        names.nonce: nonce,
    }
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs.items())


def follow(plan: Plan, offset: int) -> list[str]:
    """Follow the log of the job that `run` started, from this byte on."""
    return [*_exec(plan), contract().runner, "follow", str(offset)]


def cancel(plan: Plan, *, now: bool = False) -> list[str]:
    """Have the runner end the job: TERM, a grace period unless `now`, KILL."""
    return [*_exec(plan), contract().runner, "cancel", *(["now"] if now else [])]


def collect(plan: Plan, guest_command: list[str]) -> list[str]:
    """Run the collecting command, which prints a tar archive, in the guest."""
    return [*_exec(plan), *guest_command]


def pull(plan: Plan, guest_path: str) -> list[str]:
    """Print one file of a guest that may have stopped."""
    return ["file", "pull", "--quiet", f"{_instance(plan)}{guest_path}", "-"]


def delete(plan: Plan) -> list[str]:
    """Stop the instance by force, and delete it."""
    return ["delete", "--quiet", "--force", _instance(plan)]


def _instance(plan: Plan) -> str:
    return f"{plan.host.remote}:{plan.instance}"


def _exec(plan: Plan) -> list[str]:
    # No terminal, and `--` always: the command's own dashes are the command's.
    return ["exec", "--force-noninteractive", f"--env=PATH={_PATH}", _instance(plan), "--"]
