"""What a job was run with, as one hash: two jobs that have the same are the same job, run twice.

So if one of them passed and the other did not, the job is flaky. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from states.job import Job
from states.spec import JobSpec

# Keys of a spec that cannot change what a command does: what is kept of it, when it starts, and how
# long pikaci's own work may take.
_WITHOUT_EFFECT = (
    "artifacts",
    "deadlines",
    "description",
    "host",
    "junit",
    "keep",
    "keep_secs",
    "log_bytes",
    "max_age_secs",
    "needs",
    "priority",
    "retries",
)
# Keys by which a job can use what no hash contains.
_UNKEYED_DIRECTORIES = ("workspace_deps", "workspace_build", "nix_store")


def identity(job: Job) -> str | None:
    """The hash of snapshot, image, inputs and spec of a job; None if it had no guest.

    A key of the spec that has its default is no part of it, so a newer pikaci computes the same.
    """
    if job.spec is None or job.snapshot is None or job.image is None:
        return None
    parts = {
        "spec": effective(job.spec),
        "snapshot": job.snapshot.hash,
        "image": job.image.fingerprint,
        # An output that was made anew may be another, although its key is the same.
        "inputs": {name: (ref.key, ref.at) for name, ref in job.inputs.items()},
    }
    import hashlib  # whoever only lists jobs does without

    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def effective(spec: JobSpec) -> Mapping[str, Any]:
    """The keys of a spec that can change what its command does, where they are not the default."""
    # Defaults are left out by the type.
    asked: dict[str, Any] = msgspec.to_builtins(spec)
    return {key: value for key, value in asked.items() if key not in _WITHOUT_EFFECT}


def unkeyed(spec: JobSpec) -> tuple[str, ...]:
    """What a job can use that no hash of pikaci's contains, by the keys of the spec."""
    found = ["egress"] if spec.egress else []
    if spec.network != "none":
        found.append("network")
    found += [key for key in _UNKEYED_DIRECTORIES if isinstance(getattr(spec, key), str)]
    if any(isinstance(mount.source, str) for mount in spec.mounts):
        found.append("mounts")
    if spec.secrets:
        found.append("secrets")
    return tuple(found)
