"""Which member of a cluster gets an attempt's instance. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

ONLINE, OFFLINE = "Online", "Offline"
MOST_NAMED = 5


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A member as the cluster sees it.

    Incus calls a member `Offline` that was silent for `cluster.offline_threshold` (20 s), and
    `Evacuated` one that takes no guests.
    """

    name: str = msgspec.field(name="server_name")
    status: str
    groups: tuple[str, ...] = ()


def in_target(member: Member, target: str) -> bool:
    """Whether the member is the target, or in it: a name, `@group`, or "" for all members."""
    if target.startswith("@"):
        return target[1:] in member.groups
    return target in ("", member.name)


def choose(
    members: Sequence[Member],
    target: str,
    running: Mapping[str, int],
    *,
    slots: int | None = None,
    avoid: Collection[str] = (),
) -> str:
    """The member for another attempt; "" if none of the target is online and has a free slot.

    It is the one with the fewest of our `running` jobs. A member to `avoid` is the last choice.
    `slots` is how many jobs one member may run, None for no limit.
    """
    free = [
        member.name
        for member in members
        if in_target(member, target)
        and member.status == ONLINE
        and (slots is None or running.get(member.name, 0) < slots)
    ]
    return min(free, key=lambda name: (name in avoid, running.get(name, 0), name), default="")


def is_full(members: Sequence[Member], target: str) -> bool:
    """Whether it is only slots that are missing, where `choose` found no member."""
    return any(in_target(member, target) and member.status == ONLINE for member in members)


def why_none(members: Sequence[Member], target: str) -> str:
    """Why no member can take a guest, in words: all of the target that are not online."""
    where = [member for member in members if in_target(member, target)]
    if not where:
        return f"no member of the cluster is {target}"
    named = [f"{member.name} is {member.status.lower()}" for member in where[:MOST_NAMED]]
    if len(where) > MOST_NAMED:
        named.append(f"and {len(where) - MOST_NAMED} more")
    return f"no member of the cluster takes guests: {', '.join(named)}"
