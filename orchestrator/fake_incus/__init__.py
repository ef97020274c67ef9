"""A fake Incus, for tests of pikaci and of what embeds it.

    async with FakeIncus.open() as fake:
        incus = Incus(conf, spawn=fake)

It says what the real one says, as the contract tests check against both. What a job's command
does in the guest is a `guest_script` of yours; what goes wrong is asked for by `fake.fail(...)`
and its like. `python -m orchestrator.fake_incus` is the same behind a command.
"""

from orchestrator.fake_incus import words
from orchestrator.fake_incus.fake import FakeIncus
from orchestrator.fake_incus.guest import GuestCommand, GuestOutcome, GuestScript
from orchestrator.fake_incus.model import (
    FINGERPRINT,
    Image,
    Instance,
    Pool,
    Profile,
    Project,
    Store,
    furnished,
)
from orchestrator.fake_incus.shell import run_handful
from orchestrator.fake_incus.words import NotFaked, Refused

__all__ = [
    "FINGERPRINT",
    "FakeIncus",
    "GuestCommand",
    "GuestOutcome",
    "GuestScript",
    "Image",
    "Instance",
    "NotFaked",
    "Pool",
    "Profile",
    "Project",
    "Refused",
    "Store",
    "furnished",
    "run_handful",
    "words",
]
