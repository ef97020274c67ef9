"""Metrics for Prometheus.

Counters and histograms cover this process since its start, and follow the journal's entries once
those are durable. Gauges are read for each request.
"""

from __future__ import annotations

import time
from collections import Counter as Count
from collections.abc import Iterator
from datetime import UTC, datetime

import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.incus.errors import DeadlinePassed, classify, verb
from orchestrator.journal import Lease
from orchestrator.orchestrator import Orchestrator
from states import events as ev
from states.errors import PikaciError
from states.job import Job, fold, step
from states.lifecycle import State
from states.usage import Usage

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PHASE_SECS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 10_800)
CPU_SECS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 10_800, 36_000)
MEMORY_BYTES = tuple(1 << power for power in range(24, 39))  # 16 MiB to 256 GiB
DURABLE_SECS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_DUTIES = ("recover", "reap", "take_up", "warm", "job")
_LEASE_KINDS = ("in_use", "warm", "kept", "overdue")


class Metrics(Collector):
    """The metrics of one orchestrator, since this object was made."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._jobs: dict[str, Job] = {}  # those that have not ended
        self._one_renders = trio.Lock()
        self._statistics = orchestrator.statistics()
        self._registry = registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        self._ended = Counter(
            "pikaci_jobs_ended",
            "Jobs that ended, by verdict and kind of failure",
            ("verdict", "kind"),
            registry=registry,
        )
        self._reused = Counter(
            "pikaci_outputs_reused",
            "Jobs that passed without running, as their output was there already",
            registry=registry,
        )
        self._phases = Histogram(
            "pikaci_phase_seconds",
            "Time that jobs spent in each state, counted when they leave it",
            ("state",),
            buckets=PHASE_SECS,
            registry=registry,
        )
        self._durable = Histogram(
            "pikaci_journal_append_seconds",
            "Time from an event until it is durable",
            buckets=DURABLE_SECS,
            registry=registry,
        )
        self._cpu = Histogram(
            "pikaci_job_cpu_seconds",
            "CPU time of jobs that ended, where their guests say it",
            buckets=CPU_SECS,
            registry=registry,
        )
        self._memory = Histogram(
            "pikaci_job_memory_peak_bytes",
            "Peak memory of jobs that ended, with cached files",
            buckets=MEMORY_BYTES,
            registry=registry,
        )
        self._calls = Counter(
            "pikaci_incus_calls",
            "Finished incus commands of jobs, by verb and type of error",
            ("verb", "error"),
            registry=registry,
        )
        orchestrator.journal.observe(self._on_entry)

    async def render(self) -> bytes:
        """The current metrics, in Prometheus's text format (`MEDIA_TYPE`)."""
        async with self._one_renders:
            self._statistics = self._orchestrator.statistics()
            return await self._orchestrator.reading.journal(lambda: generate_latest(self._registry))

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; the registry calls this, in `render`'s thread."""
        found = self._statistics
        jobs = GaugeMetricFamily(
            "pikaci_jobs",
            "Jobs that are queued, and that have a slot",
            labels=("state",),
        )
        jobs.add_metric(("queued",), found.queued)
        jobs.add_metric(("running",), found.running)
        yield jobs
        yield GaugeMetricFamily(
            "pikaci_jobs_waiting",
            "Jobs that wait for jobs that they need, or for their output",
            value=found.waiting,
        )
        yield GaugeMetricFamily(
            "pikaci_queue_oldest_seconds",
            "How long the oldest queued job has been waiting; 0 if none is queued",
            value=found.oldest_queued_secs,
        )
        yield GaugeMetricFamily(
            "pikaci_jobs_damaged",
            "Jobs in the journal that this process could not read",
            value=len(self._orchestrator.journal.damaged),
        )
        instances = GaugeMetricFamily(
            "pikaci_instances",
            "Instances with a lease: in use, warm, kept for debugging, or past their deadline",
            labels=("lease",),
        )
        leases = self._leases()
        for kind in _LEASE_KINDS:
            instances.add_metric((kind,), leases[kind])
        yield instances
        faults = CounterMetricFamily(
            "pikaci_upkeep_faults",
            "Failures of upkeep, by duty, and jobs that the service lost; it retries",
            labels=("duty",),
        )
        for duty in _DUTIES:
            faults.add_metric((duty,), self._orchestrator.fault_counts[duty])
        yield faults

    def _leases(self) -> Count[str]:
        now = datetime.now(UTC)
        return Count(_kind_of(lease, now) for lease in self._orchestrator.journal.open_leases())

    def _on_entry(self, entry: ev.Entry) -> None:
        if isinstance(entry, ev.Event):
            self._durable.observe(max(0.0, time.monotonic() - entry.monotonic))
            self._move(entry)
        elif isinstance(entry, ev.Called):
            self._calls.labels(verb(entry.argv), _error(entry)).inc()

    def _move(self, event: ev.Event) -> None:
        before = self._jobs.pop(event.job, Job())
        if before.seq == event.seq - 1:
            job = step(before, event)
        else:
            # The job began before this process.
            try:
                job = self._orchestrator.known(event.job) or fold(self._events(event))
            except PikaciError:
                return  # the job cannot be read, and nobody drives it
        if len(job.phases) > 1:
            left = job.phases[-2]
            self._phases.labels(left.state.value).observe((left.duration_ms or 0.0) / 1000)
        if job.verdict is None:
            self._jobs[job.id] = job
        else:
            kind = job.failure.kind.value if job.failure else ""
            self._ended.labels(job.verdict.value, kind).inc()
            if job.state is State.REUSED:
                self._reused.inc()
            self._measure(job.usage)

    def _measure(self, usage: Usage | None) -> None:
        if usage is not None and usage.cpu_ms is not None:
            self._cpu.observe(usage.cpu_ms / 1000)
        if usage is not None and usage.memory_peak_bytes is not None:
            self._memory.observe(usage.memory_peak_bytes)

    def _events(self, last: ev.Event) -> Iterator[ev.Event]:
        for _, entry in self._orchestrator.journal.entries(last.job):
            if isinstance(entry, ev.Event) and entry.seq <= last.seq:
                yield entry


def _error(call: ev.Called) -> str:
    """The type of a call's error: empty for none, `Cancelled` if its end was not awaited."""
    if call.exit_code is None:
        return DeadlinePassed.__name__ if call.error else "Cancelled"
    return classify(call.error).__name__ if call.error else ""


def _kind_of(lease: Lease, now: datetime) -> str:
    if lease.deadline < now:
        return "overdue"
    if lease.kept:
        return "kept"
    return "in_use" if lease.job else "warm"
