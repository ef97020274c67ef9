"""What comes before a job begins: what it needs, and whether its output is there.

Both come before it asks for a slot. But the output of a job that has a choice of hosts is looked
for when it has one, as its key depends on the image there.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from orchestrator.job.context import Context
from orchestrator.job.image import job_image
from orchestrator.job.needs import needed_jobs, skipped_because
from orchestrator.job.output import JobOutput
from orchestrator.job.record import Record
from orchestrator.outputs.key import output_key
from states import events as ev
from states.events import OutputRef
from states.graph import inputs
from states.outcome import Verdict


class Preparation:
    """Prepares a submitted job. `inputs` are then the outputs that it uses, by job."""

    def __init__(self, context: Context, record: Record) -> None:
        # Another attempt at a job that was taken over uses what the one before did.
        self.inputs: dict[str, OutputRef] = dict(record.job.inputs)
        self._context = context
        self._record = record

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to wait for or to look for before the job has a slot."""
        job = self._record.job
        return bool(job.needs) or (self.looks_for_output and not job.hosts)

    @property
    def looks_for_output(self) -> bool:
        """Whether the job has an output, which may be there."""
        spec = self._record.job.spec
        return spec is not None and spec.output is not None

    async def perform(self, held: AsyncExitStack) -> None:
        """Wait for the needed jobs; then, if the job has a host, `find_output`.

        The job ends if a needed one did not pass.
        """
        record = self._record
        spec = record.job.spec
        assert spec is not None
        found = await needed_jobs(self._context.journal, record)
        for name, job in found.items():
            if job.verdict is not Verdict.PASSED:
                failure = skipped_because(name, job)
                await record.emit(ev.Skipped(**record.next(), failure=failure, because=job.id))
                return
        used = {name for _, name in inputs(spec)}
        self.inputs = {
            name: job.output for name, job in found.items() if name in used and job.output
        }
        if self.looks_for_output and not record.job.hosts:
            await self.find_output(held)

    async def find_output(self, held: AsyncExitStack) -> None:
        """Look for the output. The job ends if it is there.

        Otherwise no other job makes the same output until `held` is closed. Raises a `PikaciError`
        if the image cannot be looked up.
        """
        record = self._record
        spec = record.job.spec
        assert spec is not None
        output = JobOutput(self._context, record)
        images = self._context.at(record.job.host).images
        fingerprint = ""  # of an image that is an input, the key has that input's key
        if isinstance(spec.image, str):
            fingerprint = (await job_image(images, record, spec)).fingerprint
        parts = output.parts(fingerprint, self.inputs)
        since = trio.current_time()
        try:
            await held.enter_async_context(self._context.building.alone(output_key(parts)))
        finally:
            record.waited(ev.WaitFor.OUTPUT, since)
        there = await output.find(parts, self.inputs)
        if there is not None:
            await record.emit(ev.Reused(**record.next(), output=there.ref))
