"""Publishes the snapshot for a submission."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio

from orchestrator.contract import contract
from orchestrator.errors import UsageError, one_error
from orchestrator.job.submission import Request, real_path
from orchestrator.slow_files import look_up
from orchestrator.snapshot.index import read_index
from orchestrator.snapshot.part import publish_part
from orchestrator.snapshot.progress import Progress
from orchestrator.snapshot.snapshot import Snapshot, publish
from orchestrator.state_root import StateRoot

# Each occupies a thread; jobs need threads for their incus commands.
PUBLISHERS = 4
# What takes longer is told, so often.
PROGRESS_SECS = 1.0


class Publisher:
    """Publishes in one state root. `workspace` is the default."""

    def __init__(
        self,
        root: StateRoot,
        workspace: Path | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._root = root
        self._workspace = workspace
        self._on_progress = on_progress
        self._limiter = trio.CapacityLimiter(PUBLISHERS)

    def tree(self, workspace: Path | None) -> Path:
        """The real path of the workspace; `UsageError` if it cannot be one.

        Blocks on the file system.
        """
        named = workspace or self._workspace
        tree = real_path(named) if named is not None else None
        if tree is None or not os.path.isdir(tree):
            raise UsageError(
                f"{named or 'no workspace'}: no such directory",
                resolution="name an existing directory as the workspace",
            )
        if tree == Path("/"):
            raise UsageError(
                "/: the whole file system cannot be a workspace",
                resolution="name the directory that the jobs need",
            )
        return tree

    async def publish(
        self,
        workspace: Path | None,
        *,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        git: bool = False,
    ) -> Snapshot:
        """Publish the workspace as it is now."""
        tree = await look_up(
            f"the workspace {workspace or self._workspace}", lambda: self.tree(workspace)
        )
        progress = Progress()
        with one_error():
            async with self._limiter, trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, progress)
                snapshot = await publish(
                    tree,
                    self._root.snapshots,
                    own=(self._root.path,),
                    include=include,
                    exclude=exclude,
                    git=git,
                    owner=(contract().user.uid, contract().user.gid),
                    index=self._root.index(tree),
                    progress=progress,
                )
                nursery.cancel_scope.cancel()
        return snapshot

    async def _tell(self, progress: Progress) -> None:
        while True:
            await trio.sleep(PROGRESS_SECS)
            self._on_progress(progress)

    async def prepare(self, request: Request) -> Snapshot:
        """Return the snapshot for the jobs of the request."""
        if request.snapshot is not None:
            if not await trio.to_thread.run_sync(request.snapshot.path.is_dir):
                raise UsageError(
                    f"the snapshot {request.snapshot.hash[:12]} no longer exists",
                    resolution="publish the workspace again",
                )
            return request.snapshot
        return await self.publish(
            request.workspace, include=request.include, exclude=request.exclude, git=request.git
        )

    async def parts(self, request: Request, whole: Snapshot) -> dict[tuple[str, ...], Snapshot]:
        """Publish the parts of the snapshot for jobs with `sources`; by these."""
        user = contract().user
        wanted = {spec.sources for spec in request.specs.values() if spec.sources is not None}
        if not wanted:
            return {}
        tree = request.workspace
        parts = {}
        async with self._limiter:
            index = await trio.to_thread.run_sync(read_index, self._root.index(tree), tree)
            for globs in wanted:
                parts[globs] = await publish_part(
                    whole,
                    self._root.snapshots,
                    globs,
                    owner=(user.uid, user.gid),
                    index=index,
                )
        return parts
