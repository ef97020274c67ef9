"""A host as plans see it: which Incus, and what of it is pikaci's."""

from __future__ import annotations

import msgspec

LOCAL = "local"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Where instances are created: an incus remote, and pikaci's project and pool on it.

    `name` is what people call the host. `target` is a member of a cluster or `@group` that gets the
    instances, "" for Incus's own choice.
    """

    name: str = LOCAL
    remote: str = LOCAL
    project: str = "pikaci"
    pool: str = "pikaci"
    target: str = ""

    @property
    def is_local(self) -> bool:
        """Whether its guests run on this machine, whose files and kernel we can look at."""
        return self.name == LOCAL and self.remote == LOCAL

    @property
    def on(self) -> str:
        """` on NAME`, for messages; "" for the local host."""
        return "" if self.name == LOCAL else f" on {self.name}"
