"""The plan of an attempt: what to create, mount, run and wait for, as data. Pure.

What a plan says is what runs: `orchestrator.attempt.effects` turns it into incus commands, for
execution and for `--dry-run` alike.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from datetime import datetime

import msgspec

from orchestrator.attempt.id_map import IdRange, chosen_by_incus, id_map_config
from orchestrator.attempt.outside import outside_variables, reaches_outside
from orchestrator.contract import contract
from orchestrator.incus import Host
from states.spec import Deadlines, InstanceType, JobSpec, SecretSource, size_in_bytes

Devices = dict[str, dict[str, str]]

# Syscalls that reach what guests on one kernel share, in the syntax of `security.syscalls.deny`.
# Key rings belong to a uid, and uid 1000 is the same in every container; any process can cause
# lines in the kernel's log. Programs expect ENOSYS from a kernel without key rings, and EPERM from
# one that keeps its log for root.
_DENIED = (
    "add_key errno 38",
    "keyctl errno 38",
    "request_key errno 38",
    "syslog errno 1",
)
# Sockets that no network namespace contains: AF_VSOCK (40) reaches the hypervisor, VMs and other
# guests; AF_QIPCRTR (42) reaches other guests. The mask is needed because the kernel reads only 32
# bits of the argument, so higher bits could hide the family. io_uring makes sockets that no filter
# sees.
_DENIED_WITHOUT_NETWORK = (
    "io_uring_setup errno 38",
    "socket errno 97 [0,40,SCMP_CMP_MASKED_EQ,0xffffffff]",
    "socket errno 97 [0,42,SCMP_CMP_MASKED_EQ,0xffffffff]",
)


class PlanContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan needs besides the spec.

    `fingerprint` is that of the image. `snapshot` is the place of the published
    snapshot on the host: an absolute path there, or the name of a volume in the host's pool. `ids`
    is the range in which guests get id maps of their own, None for no such maps. `certificates` is
    the place of a directory with the authorities that guests are to trust, "" for none.
    `begun` is when this attempt began, by the clock that set `lease_ends`; None if its instance is
    there already. `mirrors` are variables for a job with `host_mirrors`, which lead to
    `mirror_hosts`. `member` is the member of the cluster that gets the instance, "" where Incus is
    no cluster. `instance` is the name of a warm guest, "" for the name of one that is made for the
    attempt.
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
    begun: datetime | None = None
    ids: IdRange | None = None
    certificates: str = ""
    mirrors: dict[str, str] = {}
    mirror_hosts: tuple[str, ...] = ()
    member: str = ""
    instance: str = ""

    @property
    def guest(self) -> str:
        """The name of the attempt's instance."""
        return self.instance or instance_name(self.owner, self.job, self.attempt)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one job.

    `member` is the member of the cluster that has the instance, "" where Incus is no cluster.
    `config` and `devices` are passed to Incus's create call. `mounts` are the guest paths that must
    be mounted before the runner starts. `environment` goes to the runner's stdin, and so do the
    values of `secrets`, for which a plan holds only the sources. `egress` has the rules of the
    job's way out, empty for none; it also leads to `mirror_hosts`. `timeout_secs` limits the
    command. `artifacts` are globs of all files to collect, `junit` those of test reports. `output`
    is the directory of the guest, or "image", that the job leaves for others; a
    directory has at most `output_bytes`. At `lease_ends` the guest shuts itself down, and may be
    deleted.
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
    junit: tuple[str, ...]
    output: str | None
    output_bytes: int
    log_bytes: int
    egress: tuple[str, ...]
    mirror_hosts: tuple[str, ...]
    deadlines: Deadlines
    lease_ends: datetime
    member: str = ""

    @property
    def has_own_ids(self) -> bool:
        """Whether no other guest may have ids of this guest's map."""
        return "security.idmap.isolated" in self.config

    @property
    def run_deadline_secs(self) -> float:
        """How long the host waits for the command's end; the guest's own limit is lower."""
        return _run_secs(self.timeout_secs, self.deadlines)

    def can_start(self, now: datetime) -> bool:
        """Whether a guest that starts now has time for its command before its lease ends."""
        d = self.deadlines
        needed = d.start_secs + d.ready_secs + self.run_deadline_secs + d.collect_secs
        return (self.lease_ends - now).total_seconds() >= needed

    def lease_left_secs(self, now: datetime) -> int:
        """Seconds left of the lease when the runner starts now; always enough for the command."""
        left = (self.lease_ends - now).total_seconds()
        return math.ceil(max(left, self.run_deadline_secs + self.deadlines.collect_secs))


def instance_name(owner: str, job: str, attempt: int) -> str:
    """The name of an attempt's instance: a hash, because Incus does not allow every job name."""
    digest = hashlib.sha256(f"{owner}\0{job}\0{attempt}".encode()).hexdigest()
    return f"pikaci-{digest[:20]}"


def nonce(key: str, instance: str) -> str:
    """The nonce that the result file of this instance's job must contain.

    Derived from the journal's key instead of stored, so that a restarted pikaci knows it too.
    """
    return hmac.new(key.encode(), instance.encode(), hashlib.sha256).hexdigest()[:32]


def environment(spec: JobSpec, *, run: str, name: str, commit: str) -> dict[str, str]:
    """The environment of a job's command, without secrets.

    The run is not in that of a job with an `output`: another run may reuse what it makes.
    """
    return {
        "CI": "true",
        **spec.env,
        "PIKACI_JOB": name,
        "PIKACI_RUN": run if spec.output is None else "",
        "PIKACI_COMMIT": commit,
    }


def make_plan(spec: JobSpec, context: PlanContext) -> Plan:
    """The plan of an attempt.

    `spec` must be checked, its host paths must be real paths, and values must stand for the outputs
    that it uses (`states.graph.resolved`).
    """
    assert isinstance(spec.image, str)
    shares = _shares(spec, context)
    instance = context.guest
    return Plan(
        host=context.host,
        instance=instance,
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
            **outside_variables(
                spec, instance, certificates=bool(context.certificates), mirrors=context.mirrors
            ),
            **environment(spec, run=context.run, name=context.name, commit=context.commit),
        },
        secrets=spec.secrets,
        artifacts=tuple(dict.fromkeys((*spec.artifacts, *spec.junit))),
        junit=spec.junit,
        output=spec.output,
        output_bytes=size_in_bytes(spec.disk),
        log_bytes=size_in_bytes(spec.log_bytes),
        egress=spec.egress,
        mirror_hosts=context.mirror_hosts if spec.host_mirrors else (),
        deadlines=spec.deadlines,
        lease_ends=context.lease_ends,
        member=context.member,
    )


def lease_secs(spec: JobSpec) -> float:
    """How long an attempt's instance may exist, in seconds: all its deadlines in sequence.

    Calls count twice, plus the wait for the daemon: it may go down at the end of each call and come
    back at the last moment, and then the call is repeated.
    """
    d = spec.deadlines
    run = _run_secs(spec.timeout_secs, d)
    calls = d.create_secs + d.start_secs + d.ready_secs + d.collect_secs
    if spec.output is not None:
        calls += d.publish_secs
    return 2 * calls + run + 5 * d.daemon_secs


def _run_secs(timeout_secs: int, deadlines: Deadlines) -> float:
    return timeout_secs + deadlines.grace_secs + deadlines.run_margin_secs


def _shares(spec: JobSpec, context: PlanContext) -> list[tuple[str, str, str]]:
    """(device, place on the host, guest path) of every read-only mount."""
    sources = {
        "pikaci-snapshot": context.snapshot,
        "pikaci-nix-store": spec.nix_store,
        "pikaci-workspace-deps": spec.workspace_deps,
        "pikaci-workspace-build": spec.workspace_build,
    }
    paths = contract().devices
    shares = [
        (device, source, paths[device])
        for device, source in sources.items()
        if isinstance(source, str) and source
    ]
    if context.certificates and reaches_outside(spec):
        ours = contract().certificates
        shares.append((ours.device, context.certificates, ours.path))
    for index, mount in enumerate(spec.mounts):
        assert isinstance(mount.source, str)
        shares.append((f"pikaci-mount-{index}", mount.source, mount.path.rstrip("/")))
    return shares


def _devices(spec: JobSpec, host: Host, shares: list[tuple[str, str, str]]) -> Devices:
    # Containers need shifted mounts, or the guest could not read a mode-600 file. VMs use virtiofs,
    # which does not shift. Incus refuses io.bus on a container.
    kind = (
        {"shift": "true"}
        if spec.instance_type is InstanceType.CONTAINER
        else {"shift": "false", "io.bus": "virtiofs"}
    )
    devices: Devices = {"root": {"type": "disk", "path": "/", "pool": host.pool, "size": spec.disk}}
    for device, source, path in shares:
        # Incus shifts a volume as the volume itself says; `shift` is only for directories.
        where = kind if source.startswith("/") else {"pool": host.pool}
        devices[device] = {
            "type": "disk",
            "source": source,
            "path": path,
            "readonly": "true",
            **where,
        }
    if spec.network != "none":
        devices["eth0"] = {"type": "nic", "name": "eth0", "network": spec.network}
    return devices


def lease_tags(begun: datetime | None, ends: datetime) -> dict[str, str]:
    """When an instance is to end, and when that was said: its host's clock may be another."""
    tags = {"user.pikaci.deadline": ends.isoformat()}
    return tags if begun is None else {**tags, "user.pikaci.begun": begun.isoformat()}


def _config(spec: JobSpec, context: PlanContext) -> dict[str, str]:
    config = {
        "boot.autostart": "false",  # a job's guest never comes back after a reboot
        "limits.cpu": str(spec.cpus),
        "limits.memory": spec.memory,
        "user.pikaci.owner": context.owner,
        "user.pikaci.run": context.run,
        "user.pikaci.job": context.job,
        "user.pikaci.attempt": str(context.attempt),
        **lease_tags(context.begun, context.lease_ends),
    }
    if context.member:
        # Elsewhere, its guest would boot again without the job's command.
        config["cluster.evacuate"] = "stop"
    if spec.instance_type is InstanceType.CONTAINER:
        config["limits.processes"] = str(spec.processes)
        denied = _DENIED + (_DENIED_WITHOUT_NETWORK if spec.network == "none" else ())
        config["security.syscalls.deny"] = "\n".join(denied)
        # Files of mounts whose ids are outside the map are nobody's. Only root would notice: it
        # reads what is not its own.
        if context.ids is not None and not spec.run_as_root:
            config |= id_map_config(context.ids, context.guest)
        elif not context.host.is_local and not spec.run_as_root:
            config |= chosen_by_incus(context.host)
    else:
        # Unsigned images do not boot with secure boot. It protects nothing in a guest that lives
        # for one job, so signed images do without it too.
        config["security.secureboot"] = "false"
    return config
