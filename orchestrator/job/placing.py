"""Which hosts each job of a request may run on, as far as its spec tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.host_paths import MountRule, directories
from orchestrator.incus import Host
from states.errors import SpecError
from states.spec import JobSpec, OutputOf

# Messages, each with the name of the job that it is about.
Told = dict[str, str]


def keep_to_directories(specs: Mapping[str, JobSpec], hosts: dict[str, tuple[Host, ...]]) -> Told:
    """Leave out hosts that cannot mount a job's directories; returns a message for each.

    Jobs mount directories of this machine alone. If a job has no such host, it is not changed.
    """
    told: Told = {}
    for name, spec in specs.items():
        here = tuple(host for host in hosts[name] if host.is_local)
        if not here or not directories(spec):
            continue
        for host in hosts[name]:
            if not host.is_local:
                wrong = next(iter(MountRule(host=host).refused(spec)))
                told[left_out(name, host, wrong)] = name
        hosts[name] = here
    return told


def keep_images_together(
    specs: Mapping[str, JobSpec], hosts: dict[str, tuple[Host, ...]], told: Told
) -> dict[str, SpecError]:
    """Leave out the hosts that cannot have the image of a job, as another job makes it elsewhere.

    An image stays on the host of its maker, so the two have the same hosts. What is left out is
    added to `told`. Returns what is wrong, by job, if there is no such host.
    """
    first = dict(hosts)
    pairs = [
        (spec.image.job, name) for name, spec in specs.items() if isinstance(spec.image, OutputOf)
    ]
    wrong: dict[str, SpecError] = {}
    while True:
        before = dict(hosts)
        for maker, user in pairs:
            both = tuple(host for host in hosts[maker] if host in hosts[user])
            if both:
                hosts[maker] = hosts[user] = both
            else:
                wrong[user] = SpecError(
                    "image",
                    f"{maker} leaves its image on its host, {_names(hosts[maker])}, and {user} runs"
                    f" on {_names(hosts[user])}",
                    allowed="the same `host` for both, as images do not move",
                )
        if wrong:
            return wrong
        if hosts == before:
            break
    for name in hosts:
        for host in first[name]:
            if host not in hosts[name]:
                why = "the job that makes its image, or one that uses the image, cannot run there"
                told[left_out(name, host, why)] = name
    return {}


def left_out(job: str, host: Host, why: object) -> str:
    """The message for a host that cannot run a job."""
    return f"jobs.{job} does not run on the host {host.name}: {why}"


def _names(hosts: Sequence[Host]) -> str:
    return " or ".join(host.name for host in hosts)
