"""A spec worked out as data: what will be made, mounted, run and waited for. Pure.

What a plan says is what runs: `orchestrator.attempt.effects` turns it into the incus commands, for
the effects and for `--dry-run` alike.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from datetime import datetime

import msgspec

from orchestrator.contract import contract
from states.spec import Deadlines, InstanceType, JobSpec, SecretSource, size_in_bytes

Devices = dict[str, dict[str, str]]

# Syscalls that reach what guests of one kernel share, in the words of `security.syscalls.deny`.
# Key rings belong to a uid, and every container's uid 1000 is the same one; the kernel's log has
# lines that any process can cause. ENOSYS is what programs expect of a kernel without key rings,
# EPERM of one that keeps its log for root.
_DENIED = (
    "add_key errno 38",
    "keyctl errno 38",
    "request_key errno 38",
    "syslog errno 1",
)
# Sockets that no network namespace holds: AF_VSOCK (40) reaches the hypervisor, VMs and other
# guests, AF_QIPCRTR (42) other guests. The kernel reads 32 bits of the argument, so the mask: a
# family with a bit above them is the same family. io_uring makes sockets that no filter sees.
_DENIED_WITHOUT_NETWORK = (
    "io_uring_setup errno 38",
    "socket errno 97 [0,40,SCMP_CMP_MASKED_EQ,0xffffffff]",
    "socket errno 97 [0,42,SCMP_CMP_MASKED_EQ,0xffffffff]",
)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Where instances are made: an incus remote, and what in it is ours."""

    remote: str = "local"
    project: str = "pikaci"
    pool: str = "pikaci"


class PlanContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan needs beside the spec. `fingerprint` is that of the image looked up.

    `snapshot` is the published snapshot's directory on the host.
    """

    host: Host
    owner: str
    run: str
    job: str
    name: str
    attempt: int
    snapshot: str
    commit: str
    fingerprint: str
    lease_ends: datetime


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one job.

    `config` and `devices` are Incus's, for the create call. `mounts` are the guest paths that
    must be mounted before the runner starts. `environment` is the job's own, and goes to the
    runner's stdin; so do the values of `secrets`, of which a plan has the sources alone.
    `timeout_secs` bounds the command. At `lease_ends` the guest may be gone, and ends by itself.
    """

    host: Host
    instance: str
    instance_type: InstanceType
    image: str
    fingerprint: str
    description: str
    config: dict[str, str]
    devices: Devices
    mounts: tuple[str, ...]
    command: str
    timeout_secs: int
    run_as_root: bool
    scratch: bool
    environment: dict[str, str]
    secrets: dict[str, SecretSource]
    artifacts: tuple[str, ...]
    log_bytes: int
    deadlines: Deadlines
    lease_ends: datetime

    @property
    def run_deadline_secs(self) -> float:
        """How long the host waits for the command's end; the guest's own limit lies below."""
        return _run_secs(self.timeout_secs, self.deadlines)

    def can_start(self, now: datetime) -> bool:
        """Whether a guest that starts now has the time for its command before its lease ends."""
        d = self.deadlines
        needed = d.start_secs + d.ready_secs + self.run_deadline_secs + d.collect_secs
        return (self.lease_ends - now).total_seconds() >= needed

    def lease_left_secs(self, now: datetime) -> int:
        """The lease of a guest whose runner starts now; enough for a command that starts late."""
        left = (self.lease_ends - now).total_seconds()
        return math.ceil(max(left, self.run_deadline_secs + self.deadlines.collect_secs))


def instance_name(owner: str, job: str, attempt: int) -> str:
    """The name of an attempt's instance: a hash, as a job's name may hold what Incus refuses."""
    digest = hashlib.sha256(f"{owner}\0{job}\0{attempt}".encode()).hexdigest()
    return f"pikaci-{digest[:20]}"


def nonce(key: str, instance: str) -> str:
    """What the result file of this instance's job must carry.

    Made from the journal's key, and not stored, so that a restarted pikaci knows it again.
    """
    return hmac.new(key.encode(), instance.encode(), hashlib.sha256).hexdigest()[:32]


def make_plan(spec: JobSpec, context: PlanContext) -> Plan:
    """The plan of an attempt. `spec` has passed `states.check`; its host paths are real paths."""
    shares = _shares(spec, context.snapshot)
    return Plan(
        host=context.host,
        instance=instance_name(context.owner, context.job, context.attempt),
        instance_type=spec.instance_type,
        image=spec.image,
        fingerprint=context.fingerprint,
        description=f"pikaci job {context.job} ({context.name}), attempt {context.attempt}",
        config=_config(spec, context),
        devices=_devices(spec, context.host, shares),
        mounts=tuple(path for _, _, path in shares),
        command=spec.command,
        timeout_secs=spec.timeout_secs,
        run_as_root=spec.run_as_root,
        scratch=spec.scratch,
        environment={
            "CI": "true",
            **spec.env,
            "PIKACI_JOB": context.name,
            "PIKACI_RUN": context.run,
            "PIKACI_COMMIT": context.commit,
        },
        secrets=spec.secrets,
        artifacts=spec.artifacts,
        log_bytes=size_in_bytes(spec.log_bytes),
        deadlines=spec.deadlines,
        lease_ends=context.lease_ends,
    )


def lease_secs(spec: JobSpec) -> float:
    """How long an attempt's instance may exist: all its deadlines, one after the other.

    The daemon may go away at the end of each call and come back at the last moment, and the call
    is made again.
    """
    d = spec.deadlines
    run = _run_secs(spec.timeout_secs, d)
    calls = d.create_secs + d.start_secs + d.ready_secs + d.collect_secs
    return 2 * calls + run + 5 * d.daemon_secs


def _run_secs(timeout_secs: int, deadlines: Deadlines) -> float:
    return timeout_secs + deadlines.grace_secs + deadlines.run_margin_secs


def _shares(spec: JobSpec, snapshot: str) -> list[tuple[str, str, str]]:
    """(device, host directory, guest path) of every read-only mount."""
    sources = {
        "pikaci-snapshot": snapshot,
        "pikaci-nix-store": spec.nix_store,
        "pikaci-workspace-deps": spec.workspace_deps,
        "pikaci-workspace-build": spec.workspace_build,
    }
    paths = contract().devices
    shares = [(device, source, paths[device]) for device, source in sources.items() if source]
    for index, mount in enumerate(spec.mounts):
        shares.append((f"pikaci-mount-{index}", mount.source, mount.path.rstrip("/")))
    return shares


def _devices(spec: JobSpec, host: Host, shares: list[tuple[str, str, str]]) -> Devices:
    # A container's mounts are shifted, or the guest could not read a mode-600 file; a VM's go
    # over virtiofs, which does not shift. Incus refuses io.bus on a container.
    kind = (
        {"shift": "true"}
        if spec.instance_type is InstanceType.CONTAINER
        else {"shift": "false", "io.bus": "virtiofs"}
    )
    devices: Devices = {"root": {"type": "disk", "path": "/", "pool": host.pool, "size": spec.disk}}
    for device, source, path in shares:
        devices[device] = {
            "type": "disk",
            "source": source,
            "path": path,
            "readonly": "true",
            **kind,
        }
    if spec.network != "none":
        devices["eth0"] = {"type": "nic", "name": "eth0", "network": spec.network}
    return devices


def _config(spec: JobSpec, context: PlanContext) -> dict[str, str]:
    config = {
        "boot.autostart": "false",  # a job's guest never comes back after a reboot
        "limits.cpu": str(spec.cpus),
        "limits.memory": spec.memory,
        "user.pikaci.owner": context.owner,
        "user.pikaci.run": context.run,
        "user.pikaci.job": context.job,
        "user.pikaci.attempt": str(context.attempt),
        "user.pikaci.deadline": context.lease_ends.isoformat(),
    }
    if spec.instance_type is InstanceType.CONTAINER:
        config["limits.processes"] = str(spec.processes)
        denied = _DENIED + (_DENIED_WITHOUT_NETWORK if spec.network == "none" else ())
        config["security.syscalls.deny"] = "\n".join(denied)
    else:
        # Images that nobody signed do not boot with it; for a guest that lives for one job it
        # guards nothing, so those that are signed do without it too.
        config["security.secureboot"] = "false"
    return config
