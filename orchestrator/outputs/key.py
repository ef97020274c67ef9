"""The key of an output: a hash over all that pikaci gives to the job that makes it. Pure.

Settings that only decide whether a job finishes are not part of it: sizes, deadlines, retries,
priority. Nor is what a job gets from elsewhere: a network, or directories of the host.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from states.graph import inputs
from states.spec import JobSpec, OutputOf

# The parts of a key, in the words of a sentence: "built, because ... is different".
WORDS = {
    "command": "the command",
    "contract": "the guest contract",
    "env": "the environment",
    "egress": "`egress`",
    "host_mirrors": "`host_mirrors`",
    "image": "the image",
    "inputs": "an input",
    "instance_type": "`instance_type`",
    "mounts": "a mounted directory",
    "network": "`network`",
    "output": "`output`",
    "run_as_root": "`run_as_root`",
    "scratch": "`scratch`",
    "workspace": "the workspace",
}


def key_parts(
    spec: JobSpec,
    *,
    environment: Mapping[str, str],
    snapshot: str,
    contract: int,
    fingerprint: str,
    input_keys: Mapping[str, str],
) -> dict[str, str]:
    """The parts of a job's key, each as a hash.

    `environment` is all of the command's, `snapshot` the hash of the workspace that it sees,
    `fingerprint` that of its image. `input_keys` are by the name of the job that made the input.
    An image that is an input counts by its key: made anew, it has another fingerprint.
    """
    image = spec.image
    values: dict[str, object] = {
        "command": spec.command,
        "contract": contract,
        "env": dict(environment),
        "egress": spec.egress,
        "host_mirrors": spec.host_mirrors,
        "image": input_keys[image.job] if isinstance(image, OutputOf) else fingerprint,
        "inputs": {key: input_keys[job] for key, job in inputs(spec)},
        "instance_type": spec.instance_type,
        "mounts": [
            (key, getattr(spec, key))
            for key in ("workspace_deps", "workspace_build", "nix_store")
            if isinstance(getattr(spec, key), str)
        ]
        + [
            (mount.path, mount.source if isinstance(mount.source, str) else "")
            for mount in spec.mounts
        ],
        "network": spec.network,
        "output": spec.output,
        "run_as_root": spec.run_as_root,
        "scratch": spec.scratch,
        "workspace": snapshot,
    }
    return {name: _hash(value) for name, value in values.items()}


def output_key(parts: Mapping[str, str]) -> str:
    """The key with these parts."""
    return _hash(dict(parts))


def difference(
    before: Mapping[str, str],
    now: Mapping[str, str],
    files_before: Mapping[str, str],
    files_now: Mapping[str, str],
) -> str:
    """Why an output has another key than an earlier one, in words; "" if it has not.

    The two `files` are hashes of the workspace's files that the jobs saw, where they are known.
    """
    different = [name for name in now if before.get(name) != now[name]]
    if "workspace" in different and files_before and files_now:
        changed = [
            name
            for name in sorted({*files_before, *files_now})
            if files_before.get(name) != files_now.get(name)
        ]
        if changed:
            more = f" and {len(changed) - 3} more files" if len(changed) > 3 else ""
            names = ", ".join(changed[:3]) + more
            rest = [WORDS[name] for name in different if name not in ("workspace", "env")]
            return f"{', '.join([names, *rest])} changed"
    return f"{', '.join(WORDS.get(name, name) for name in different)} changed" if different else ""


def _hash(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
