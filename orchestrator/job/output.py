"""The output of a job: looked for before the job runs, and published when it has passed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
import trio

from orchestrator.attempt.attempt import Attempt
from orchestrator.attempt.effects import AWAY_OR_UNKNOWN
from orchestrator.attempt.plan import environment
from orchestrator.contract import contract
from orchestrator.image.derived import make_image
from orchestrator.image.origin import Origin
from orchestrator.image.smoke import BadImage
from orchestrator.image.store import Image, ImageMissing, find_image
from orchestrator.incus import Incus
from orchestrator.incus.retries import retrying
from orchestrator.job.context import Context
from orchestrator.job.record import Record
from orchestrator.outputs.fetch import fetch_tree
from orchestrator.outputs.key import difference, key_parts, output_key
from orchestrator.outputs.store import MAX_FILES, OutputRecord
from orchestrator.outputs.tree import BadOutput
from orchestrator.snapshot.content import digest
from states.events import OutputRef
from states.identity import unkeyed
from states.job import Job
from states.spec import IMAGE

# A record lists the files of a small workspace, so that people are told which one changed.
MAX_LISTED_BYTES = 16 << 20


class JobOutput:
    """The output of one job that has one."""

    def __init__(self, context: Context, record: Record) -> None:
        self._context = context
        self._record = record
        self._there = context.at(record.job.host)
        self._incus = self._there.incus.observed(record.called)
        self._store = context.outputs

    def _reaching(self, attempt: Attempt) -> Incus:
        return self._there.reaching(attempt.plan.member).observed(self._record.called)

    @property
    def _job(self) -> Job:
        return self._record.job

    def parts(self, fingerprint: str, inputs: dict[str, OutputRef]) -> dict[str, str]:
        """The parts of the output's key, for a guest of this image with these inputs."""
        job = self._job
        assert job.spec is not None
        assert job.snapshot is not None
        return key_parts(
            job.spec,
            environment=environment(
                job.spec, run=job.run, name=job.name, commit=job.snapshot.commit or ""
            ),
            snapshot=job.snapshot.hash,
            contract=contract().version,
            fingerprint=fingerprint,
            input_keys={name: ref.key for name, ref in inputs.items()},
        )

    async def find(
        self, parts: dict[str, str], inputs: dict[str, OutputRef]
    ) -> OutputRecord | None:
        """The output with this key, which is then kept for this run.

        None if there is none, if it is too old or older than one of the `inputs`, or if a new one
        was asked for; why is noted in the trace.
        """
        job, key = self._job, output_key(parts)
        record = await trio.to_thread.run_sync(self._store.find, key)
        reason = "" if record is None else await self._objection(record, inputs)
        if record is not None and not reason:
            try:
                await trio.to_thread.run_sync(self._store.use, record, job.run)
                return record
            except OSError:
                reason = "the last one was just deleted"
        self._record.output_missing(key, reason or await self._difference(parts))
        return None

    async def publish(self, attempt: Attempt) -> OutputRef:
        """Publish what the job left in its guest. `BadOutput` if it is not what it must be."""
        job = self._job
        assert job.spec is not None
        assert job.image is not None
        parts = self.parts(job.image.fingerprint, job.inputs)
        record = OutputRecord(
            key=output_key(parts),
            job=job.id,
            name=job.name,
            workspace=job.workspace,
            at=datetime.now(UTC),
            parts=parts,
            sources=await trio.to_thread.run_sync(self._files),
            unkeyed=unkeyed(job.spec),
        )
        before = await trio.to_thread.run_sync(self._store.made_by, record.key, job.id)
        if before is not None:  # by a process that died before it could say so
            return before.ref
        if attempt.plan.output == IMAGE:
            image = await self._make_image(attempt, record)
            done = msgspec.structs.replace(record, fingerprint=image.fingerprint, size=image.size)
            directory = await trio.to_thread.run_sync(self._store.begin, job.run)
        else:
            tree = await fetch_tree(self._reaching(attempt), attempt.plan, self._store, run=job.run)
            done = msgspec.structs.replace(record, size=tree.size, entries=tree.entries)
            directory = tree.directory
        await trio.to_thread.run_sync(self._store.publish, directory, done, job.run)
        return done.ref

    async def _make_image(self, attempt: Attempt, record: OutputRecord) -> Image:
        job = self._job
        assert job.image is not None
        origin = Origin(
            owner=self._context.journal.owner, key=record.key, job=job.id, name=job.name
        )
        await trio.to_thread.run_sync(self._store.note_images, job.host)
        try:
            return await make_image(
                self._reaching(attempt), attempt.plan, origin, minor=job.image.minor
            )
        except BadImage as bad:
            raise BadOutput(bad.brief, details=bad.details, resolution=bad.resolution) from None

    async def _objection(self, record: OutputRecord, inputs: dict[str, OutputRef]) -> str:
        """Why the output is not reused, "" if it can be."""
        job = self._job
        assert job.spec is not None
        if job.fresh:
            return "a new one was asked for"
        most = job.spec.max_age_secs
        if most is not None and datetime.now(UTC) - record.at > timedelta(seconds=most):
            return f"the last one is older than max_age_secs = {most}"
        for name, ref in inputs.items():
            # It has the same key, but what no key contains may have changed.
            if ref.at > record.at:
                return f"the output of {name} was rebuilt"
        if record.fingerprint:
            try:
                # Not from the cache, which may have an image that was just deleted.
                await retrying(
                    partial(find_image, self._incus, record.fingerprint, job.spec.instance_type),
                    on=AWAY_OR_UNKNOWN,
                    secs=job.spec.deadlines.daemon_secs,
                )
            except ImageMissing:
                return "the last one's image was deleted"
        return ""

    async def _difference(self, parts: dict[str, str]) -> str:
        """What is different from the last output of this job, "" if there is none."""
        job = self._job

        def compare() -> str:
            last = self._store.last_of(job.workspace, job.name)
            if last is None:
                return ""
            return difference(last.parts, parts, last.sources, self._files())

        return await trio.to_thread.run_sync(compare)

    def _files(self) -> dict[str, str]:
        """The hashes of the files that the job sees of its workspace, if they are few and small."""
        job = self._job
        assert job.snapshot is not None
        root = os.fsencode(self._context.root.snapshots / job.snapshot.hash)
        found: dict[str, str] = {}
        total = 0
        for parent, _, names in os.walk(root):
            for name in names:
                path = os.path.join(parent, name)
                status = os.lstat(path)
                total += status.st_size
                if len(found) >= MAX_FILES or total > MAX_LISTED_BYTES:
                    return {}
                shown = ascii(os.fsdecode(os.path.relpath(path, root)))[1:-1]
                is_link = os.path.islink(path)
                found[shown] = ascii(os.readlink(path)) if is_link else digest(path).hex()
        return found
