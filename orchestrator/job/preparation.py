"""What comes before a job asks for a slot: what it needs, and whether its output is there."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from orchestrator.image.store import Images
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

    def __init__(self, context: Context, record: Record, images: Images) -> None:
        # Another attempt at a job that was taken over uses what the one before did.
        self.inputs: dict[str, OutputRef] = dict(record.job.inputs)
        self._context = context
        self._record = record
        self._images = images

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to wait for or to look for."""
        job = self._record.job
        return bool(job.needs) or (job.spec is not None and job.spec.output is not None)

    async def perform(self, held: AsyncExitStack) -> None:
        """Wait for the needed jobs. The job ends if one did not pass, or if its output is there.

        Otherwise no other job makes the same output until `held` is closed. Raises a `PikaciError`
        if the image cannot be looked up.
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
        if spec.output is None:
            return
        output = JobOutput(self._context, record)
        fingerprint = ""  # of an image that is an input, the key has that input's key
        if isinstance(spec.image, str):
            fingerprint = (await job_image(self._images, record, spec)).fingerprint
        parts = output.parts(fingerprint, self.inputs)
        since = trio.current_time()
        try:
            await held.enter_async_context(self._context.building.alone(output_key(parts)))
        finally:
            record.waited(ev.WaitFor.OUTPUT, since)
        there = await output.find(parts, self.inputs)
        if there is not None:
            await record.emit(ev.Reused(**record.next(), output=there.ref))
