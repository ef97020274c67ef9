"""A short test of an image that a job left, before anybody uses it.

`orchestrator.image.check` tries every promise of the contract. This tries what a careless or
hostile job is most likely to break, in a few seconds.
"""

from __future__ import annotations

import secrets
import shlex
from datetime import UTC, datetime

import msgspec

from orchestrator.attempt.boot import NotReady, boot
from orchestrator.attempt.plan import Plan, lease_tags
from orchestrator.attempt.result import GuestResult
from orchestrator.contract import contract
from orchestrator.image.store import Image
from orchestrator.image.trial import (
    LEASE,
    READY_SECS,
    TRIAL,
    TrialGuest,
    delete_trials_of,
    trial_guest,
)
from orchestrator.incus import Incus
from orchestrator.incus.errors import IncusError
from states.errors import PikaciError

# Nothing of the job that made the image may be there, and nothing may print but this.
_TRIAL = """\
echo "$1 $(id -u) $PWD"
for dir in /artifacts "$CARGO_TARGET_DIR" "$HOME"; do : >"$dir/new" && rm "$dir/new"; done
ls -A "$CARGO_TARGET_DIR"
"""


class BadImage(PikaciError):
    """The guest cannot become an image that keeps the contract. This is its job's fault."""


async def smoke_test(incus: Incus, plan: Plan, image: Image) -> None:
    """Run a job as each user in a guest from the image; `BadImage` if that is not as it must be.

    `plan` is that of the job that made it: the guest has its limits, and its snapshot. Also deletes
    guests of processes that were killed. Raises an `IncusError` for what is not the image's fault.
    """
    tags = plan.config
    await delete_trials_of(incus, tags["user.pikaci.owner"], tags["user.pikaci.job"])
    trial = _trial_plan(plan, image.fingerprint)
    try:
        async with trial_guest(incus, trial):
            await boot(incus, trial)
            guest = TrialGuest(incus, trial)
            for as_root in (False, True):
                await _try_job(guest, as_root=as_root)
                await guest.reset()
    except NotReady as error:
        raise BadImage(f"a guest from it is not ready: {error.brief}") from None
    except IncusError as error:
        if type(error) is not IncusError:  # a more specific error explains itself
            raise
        raise BadImage(
            f"no guest can be started from it: {error.brief}", details=error.details
        ) from None


async def _try_job(guest: TrialGuest, *, as_root: bool) -> None:
    user = contract().user
    word, uid = secrets.token_hex(8), 0 if as_root else user.uid
    command = f"sh -c {shlex.quote(_TRIAL)} pikaci-trial {word}"
    done, result = await guest.job(command, as_root=as_root)
    expected = f"{word} {uid} /workspace/snapshot\n".encode()
    passed = isinstance(result, GuestResult) and result.exit_code == 0
    if passed and done.stdout.partition(b"\n")[2] == expected:
        return
    who = "root" if as_root else user.name
    said = done.stdout[-200:].decode("utf-8", "replace").strip()
    raise BadImage(
        f"a command of {who} in a guest from it does not run as the guest contract says",
        details=f"{result}\n{said}",
        resolution="the command must leave the runner, its directory and the user as they were",
    )


def _trial_plan(plan: Plan, fingerprint: str) -> Plan:
    """The plan of the guest that tries the image: that of the job, without all that is its own."""
    ours, snapshot = contract(), "pikaci-snapshot"
    now = datetime.now(UTC)
    ends = now + LEASE
    config = {
        key: value for key, value in plan.config.items() if not key.startswith("security.idmap.")
    }
    # Its owner and its run are the job's: the reaper deletes it when the process is gone.
    config |= {TRIAL: "image", **lease_tags(now, ends)}
    return msgspec.structs.replace(
        plan,
        # A new name: what a dead process asked of an earlier one may still be carried out.
        instance=f"pikaci-{secrets.token_hex(10)}",
        description="pikaci tries an image",
        image=fingerprint,
        fingerprint=fingerprint,
        config=config,
        devices={name: plan.devices[name] for name in ("root", snapshot)},
        mounts=(ours.devices[snapshot],),
        environment={},
        secrets={},
        scratch=False,
        egress=(),
        output=None,
        deadlines=msgspec.structs.replace(plan.deadlines, ready_secs=READY_SECS),
        lease_ends=ends,
    )
