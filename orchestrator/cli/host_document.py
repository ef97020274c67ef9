"""What `pikaci host list` prints as JSON."""

from __future__ import annotations

import msgspec

from orchestrator.hosts.settings import HostSettings


class HostDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A host, and how it is reached; `settings` are those that differ from the defaults."""

    name: str
    reached: str
    settings: dict[str, object] = {}

    @classmethod
    def of(cls, name: str, settings: HostSettings) -> HostDocument:
        """The document of a host in the user's settings."""
        reached = f"ssh {settings.ssh}" if settings.ssh else f"Incus remote {settings.remote}"
        plain = HostSettings()
        own = {
            key: getattr(settings, key)
            for key in settings.__struct_fields__
            if getattr(settings, key) != getattr(plain, key)
        }
        return cls(name=name, reached=reached, settings=own)
