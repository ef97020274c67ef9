"""Where an image that is a job's output comes from: properties of the image say it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_PREFIX = "pikaci.output."


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The job that left the image, its `name`, and the `key` of its output.

    `owner` is the state root that the job belongs to.
    """

    owner: str
    key: str
    job: str
    name: str

    @property
    def properties(self) -> dict[str, str]:
        """The properties that say so, for a new image."""
        return {f"{_PREFIX}{field}": getattr(self, field) for field in self.__struct_fields__}


def origin_of(properties: Mapping[str, str]) -> Origin | None:
    """The origin of an image with these properties; None if it is not a job's output."""
    found = {field: properties.get(f"{_PREFIX}{field}", "") for field in Origin.__struct_fields__}
    return Origin(**found) if all(found.values()) else None
