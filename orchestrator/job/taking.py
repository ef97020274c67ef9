"""Whether the host with a free slot takes a job that has a choice of hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from orchestrator.errors import UsageError
from orchestrator.image.store import check_age, find_image
from orchestrator.incus.retries import RetryClock
from orchestrator.job.context import Context
from orchestrator.job.record import Record
from orchestrator.job.silent_hosts import CANNOT
from states.errors import PikaciError
from states.events import OutputRef
from states.spec import JobSpec


class Taking:
    """Finds the host of one job among those that it may run on.

    `inputs` returns the outputs that the job uses, by job. `UsageError` if the settings have none
    of the hosts.
    """

    def __init__(
        self, context: Context, record: Record, inputs: Callable[[], Mapping[str, OutputRef]]
    ) -> None:
        self._context = context
        self._record = record
        self._inputs = inputs
        assert record.job.spec is not None
        self._clock = RetryClock(record.job.spec.deadlines.daemon_secs)
        self._left: list[str] = []
        for name in record.job.hosts:
            with suppress(UsageError):
                self._left.append(context.at(name).host.name)
        if not self._left:
            context.at(record.job.hosts[0])

    def hosts(self) -> list[str]:
        """The hosts that may take the job now: those that answer, as far as is known, or all."""
        here = [name for name in self._left if self._context.silent.fault(name) is None]
        return here or self._left

    async def take(self, host: str) -> bool:
        """Whether the host takes the job; then that is the job's host.

        Otherwise the job must ask for a slot again. Raises a `PikaciError` if no host has taken it
        for `daemon_secs`, or none can.
        """
        try:
            async with self._context.silent.asking(host):
                await self._ask(host)
        except CANNOT as error:
            self._record.warn(f"does not run on the host {host}: {error.headline}")
            self._left.remove(host)
            if not self._left:
                raise
            return False
        except PikaciError as fault:
            if all(map(self._context.silent.is_silent, self._left)):
                await self._clock.after(fault)
            else:
                self._clock.reset()
            return False
        self._record.decide(host)
        return True

    async def _ask(self, host: str) -> None:
        """Return if the host has the image of the job. Nothing that was found before counts."""
        spec = self._record.job.spec
        assert spec is not None
        incus = self._context.at(host).incus.observed(self._record.called)
        image = await find_image(incus, self._image(spec), spec.instance_type)
        check_age(image, spec)

    def _image(self, spec: JobSpec) -> str:
        if isinstance(spec.image, str):
            return spec.image
        return self._inputs()[spec.image.job].fingerprint
