"""Lists the images of a project, as rows and as a table of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from orchestrator.contract import contract
from orchestrator.image.store import Image
from orchestrator.terminal import plain
from orchestrator.units import age, size

_TYPES = {"container": "container", "virtual-machine": "vm"}


class ImageRow(msgspec.Struct, frozen=True):
    """An image: `size` in bytes; `usable` if this pikaci supports its contract version.

    `contract` is that version, `contract_minor` the minor one; None and 0 if it claims none. An
    image that is a job's output has the `job` that made it, its name, and the `key` of the output.
    """

    aliases: list[str]
    fingerprint: str
    type: str
    contract: str | None
    contract_minor: int
    usable: bool
    size: int
    uploaded_at: datetime
    description: str
    job: str | None
    job_name: str | None
    key: str | None


def rows(images: Sequence[Image]) -> list[ImageRow]:
    """The images as rows, newest first."""
    ours = str(contract().version)
    return [
        ImageRow(
            aliases=sorted(alias.name for alias in image.aliases),
            fingerprint=image.fingerprint,
            type=image.type,
            contract=image.contract,
            contract_minor=image.minor,
            usable=image.contract == ours,
            size=image.size,
            uploaded_at=image.uploaded_at,
            description=image.properties.get("description", ""),
            job=image.origin.job if image.origin else None,
            job_name=image.origin.name if image.origin else None,
            key=image.origin.key if image.origin else None,
        )
        for image in sorted(images, key=lambda image: image.uploaded_at, reverse=True)
    ]


def table(found: Sequence[ImageRow], now: datetime | None = None) -> str:
    """The rows as a table; without rows, a hint what to type."""
    if not found:
        return "there are no images; `pikaci image build` builds one"
    now = now or datetime.now(UTC)
    names = [plain(", ".join(row.aliases) or _made_by(row)) for row in found]
    width = max(24, *map(len, names))
    lines = [
        f"{'ALIAS':{width}}  {'FINGERPRINT':12}  {'TYPE':9}  {'CONTRACT':9} {'SIZE':>8}  {'AGE':>6}"
    ]
    for name, row in zip(names, found, strict=True):
        version = f"{plain(row.contract)}.{row.contract_minor}" if row.contract else "none"
        version += "" if row.usable else " (no)"
        lines.append(
            f"{name:{width}}  {row.fingerprint[:12]}  {_TYPES.get(row.type, row.type):9}"
            f"  {version:9} {size(row.size):>8}  {age((now - row.uploaded_at).total_seconds()):>6}"
        )
    if not all(row.usable for row in found):
        lines.append(f"(no): this pikaci needs version {contract().version} of the guest contract")
    if any(row.job and not row.aliases for row in found):
        lines.append("NAME (JOB): the output of a job; `pikaci gc` deletes it when no run needs it")
    return "\n".join(lines)


def _made_by(row: ImageRow) -> str:
    """What stands for the alias of an image that has none."""
    return f"{row.job_name} ({row.job})" if row.job else "-"
