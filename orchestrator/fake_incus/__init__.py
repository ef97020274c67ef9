"""A fake Incus, for tests of pikaci and of programs that embed it.

    async with FakeIncus.open() as fake:
        incus = Incus(conf, spawn=fake)

It answers like the real Incus: the contract tests run against both. Your `guest_script` decides
what a job's command does in the guest; `fake.fail(...)` and similar methods inject faults. `python
-m orchestrator.fake_incus` is the same fake as a command.
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
