"""Trees on a host that shares no directory with us: read-only volumes, named by their content.

A volume is made once, under a temporary name, from a backup that Incus refuses unless it is whole.
Then it is renamed, and marked. Incus renames a volume in its database first, and then on the disk:
a daemon that is killed in between has a volume that leads nowhere, without the mark. Of two
publishers of one tree one is faster, and both succeed.

Guests of many state roots use the same volume. `user.pikaci.until` says how long it is needed at
least; each delivery puts that off. Incus deletes no volume that an instance has. A volume that is
deleted between its delivery and a create call (a clock may be wrong) fails that call, and the next
delivery makes it anew.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Generator, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import trio

from orchestrator.contract import contract
from orchestrator.hosts.backup import TREE, archive
from orchestrator.hosts.members import Members
from orchestrator.hosts.trees import Tree
from orchestrator.hosts.volume_calls import (
    Pool,
    Volume,
    delete_volume,
    find_volume,
    import_volume,
    list_volumes,
    rename_volume,
    set_volume,
)
from orchestrator.incus import Call, Feed, Incus
from orchestrator.incus.errors import (
    IncusError,
    MemberOffline,
    NameTaken,
    VolumeInUse,
    VolumeNotFound,
)
from orchestrator.incus.retries import finish_despite_cancel
from states.errors import PikaciError

UNTIL, CONTENT = "user.pikaci.until", "user.pikaci.tree"
# The mark: WHOLE says what MADE says. A mark that comes too late, for a volume that was made anew
# meanwhile, says something else.
MADE, WHOLE = "user.pikaci.made", "user.pikaci.whole"
SHIFTED = "security.shifted"  # or a guest cannot read its own user's files
# A tree is mostly used again on the same day, and then costs one call.
KEEP_SECS = 86400.0
CLEAN_UP_SECS = 10.0
# A publisher that lives sets the mark this soon after it renamed the volume.
MARK_SECS, LOOK_AGAIN_SECS = 10.0, 0.2
MAX_TRIES = 5
_PREFIX, _NEW = "pikaci-", "pikaci-new-"
_NAME_DIGITS = 40


class VolumeDiffers(PikaciError):
    """A volume has the name of a tree, but pikaci did not make it of that tree."""


class VolumeTrees:
    """Trees as volumes in a host's pool. A tree that is there is not sent again.

    One object for all jobs of a process: only one of them sends a tree. In a cluster each member
    has volumes of its own.
    """

    def __init__(self, incus: Incus, pool: str, members: Members | None = None) -> None:
        self._incus = incus
        self._pool = Pool(pool)
        self._members = members
        self._sending: dict[tuple[str, str], trio.Lock] = {}

    def place(self, tree: Tree) -> str:
        """The volume of a tree, and the directory in it: the source of a disk device."""
        return f"{volume_of(tree)}/{TREE}"

    def observed(self, observe: Callable[[Call], None]) -> Self:
        same = copy(self)
        same._incus = self._incus.observed(observe)
        return same

    async def deliver(self, trees: Sequence[Tree], *, lease_secs: float, member: str = "") -> None:
        """Return when all the trees are volumes there, which stay for `lease_secs` at least.

        In a cluster they are on `member`. Raises `DaemonUnreachable` or `OutcomeUnknown` if another
        try may help, else another `PikaciError`. An error or a cancellation leaves no volume under
        the name of a tree that is not whole. What else it leaves is deleted at once, if that is
        possible, and by garbage collection if not.
        """
        there = self._on(member)
        for tree in trees:
            # Other jobs of this process wait, and then find it.
            async with self._sending.setdefault((member, tree.name), trio.Lock()):
                for _ in range(MAX_TRIES):
                    if await there._keep(tree, lease_secs):
                        break
                    if await there._publish(tree, lease_secs):
                        break
                else:
                    raise VolumeDiffers(
                        f"the volume {volume_of(tree)} is deleted as soon as it is created",
                        resolution="check the clocks of the machines that delete old trees there",
                    )

    def _on(self, member: str) -> VolumeTrees:
        """These trees on one member of a cluster."""
        there = copy(self)
        there._pool = replace(self._pool, member=member)
        if self._members is not None:
            there._incus = self._members.during(self._incus, member)
        return there

    async def sweep(self, *, idle_secs: float, dry_run: bool = False) -> list[str]:
        """Delete trees that were last needed `idle_secs` ago, and what broken transfers left.

        Returns the names of the volumes that were, or would be, deleted. All state roots that use
        the project share its trees, so each may delete what is past its time, whoever sent it. One
        that an instance has stays, running or not: Incus does not delete it.
        """
        moment = datetime.now(UTC)
        swept: list[str] = []
        for volume in await list_volumes(self._incus, self._pool):
            idle = 0.0 if volume.name.startswith(_NEW) else idle_secs
            past = _needed_until(volume) < moment - timedelta(seconds=idle)
            if CONTENT not in volume.config or volume.used_by or not past:
                continue
            there = self._on("" if volume.location == "none" else volume.location)
            if volume.name.startswith(_PREFIX) and (dry_run or await there._delete(volume.name)):
                swept.append(volume.name)
        return swept

    async def _delete(self, name: str) -> bool:
        try:
            await self._incus.perform(delete_volume(self._incus, self._pool, name))
        except (VolumeNotFound, VolumeInUse, MemberOffline):
            return False  # another one swept it, or a job has just got it, or its member is away
        return True

    async def _keep(self, tree: Tree, secs: float) -> bool:
        """Whether the tree is there, and now is kept for long enough."""
        incus, pool, name = self._incus, self._pool, volume_of(tree)
        seen, abandoned = "", 0.0
        try:
            while not _is_marked(found := await find_volume(incus, pool, name)):
                if (made := found.config.get(MADE, "-")) != seen:
                    seen, abandoned = made, trio.current_time() + MARK_SECS
                if trio.current_time() >= abandoned:
                    await incus.perform(delete_volume(incus, pool, name))
                    return False
                await trio.sleep(LOOK_AGAIN_SECS)
            _check(found, _config(tree))
            if _needed_until(found) < datetime.now(UTC) + timedelta(seconds=secs):
                await incus.perform(set_volume(incus, pool, name, {UNTIL: _until(secs)}))
        except VolumeNotFound:
            return False
        return True

    async def _publish(self, tree: Tree, secs: float) -> bool:
        """Make the volume; False if another publisher was faster."""
        incus, pool = self._incus, self._pool
        new = f"{_NEW}{secrets.token_hex(8)}"
        config = {**_config(tree), MADE: new, UNTIL: _until(secs)}

        async def name() -> None:
            await incus.perform(rename_volume(incus, pool, new, volume_of(tree)))
            _check(await find_volume(incus, pool, volume_of(tree)), _config(tree))
            await incus.perform(set_volume(incus, pool, volume_of(tree), {WHOLE: new}))

        try:
            await incus.perform(import_volume(incus, pool, new), feed=_feed(tree.path, config))
            await finish_despite_cancel(name, secs=CLEAN_UP_SECS)
        except (NameTaken, VolumeNotFound):
            await self._forget(new)
            return False
        except BaseException:
            await self._forget(new)
            raise
        return True

    async def _forget(self, new: str) -> None:
        """Delete what a failed try may have left."""
        with trio.CancelScope(shield=True), trio.move_on_after(CLEAN_UP_SECS):
            try:
                await self._incus.perform(delete_volume(self._incus, self._pool, new))
            except IncusError:
                pass


def volume_of(tree: Tree) -> str:
    """The name of a tree's volume: a hash, as Incus bounds the length of names."""
    return f"{_PREFIX}{hashlib.sha256(_content(tree).encode()).hexdigest()[:_NAME_DIGITS]}"


def _content(tree: Tree) -> str:
    # Unless root or the job's user publishes a tree, its files are made readable for all.
    opened = os.geteuid() not in (0, contract().user.uid)
    return f"{tree.name} opened" if opened else tree.name


def _is_marked(volume: Volume) -> bool:
    return WHOLE in volume.config and volume.config[WHOLE] == volume.config.get(MADE)


def _config(tree: Tree) -> dict[str, str]:
    return {SHIFTED: "true", CONTENT: _content(tree)}


def _check(volume: Volume, config: dict[str, str]) -> None:
    if not config.items() <= volume.config.items():
        raise VolumeDiffers(
            f"the volume {volume.name} is not the tree that its name says",
            details=f"expected: {config}\nfound: {volume.config}",
            resolution="somebody made or changed it by hand: delete it",
        )


def _needed_until(volume: Volume) -> datetime:
    """Until when a tree is needed at least; the beginning of time if it does not say."""
    try:
        return datetime.fromisoformat(volume.config[UNTIL]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return datetime.min.replace(tzinfo=UTC)


def _until(secs: float) -> str:
    # Twice: not every delivery shall have to put it off.
    span = timedelta(seconds=max(2 * secs, KEEP_SECS))
    return (datetime.now(UTC) + span).isoformat(timespec="seconds")


def _feed(tree: Path, config: dict[str, str]) -> Feed:
    """Write the backup to the command, as it is made from the tree."""

    async def feed(stdin: trio.abc.SendStream) -> None:
        pieces = archive(tree, config, owner=(contract().user.uid, contract().user.gid))
        try:
            while (piece := await trio.to_thread.run_sync(_next, pieces)) is not None:
                await stdin.send_all(piece)
        except OSError as error:
            raise PikaciError(f"{tree} cannot be sent to another host: {error}") from error
        finally:
            pieces.close()

    return feed


def _next(pieces: Generator[bytes, None, None]) -> bytes | None:
    return next(pieces, None)
