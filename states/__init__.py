"""What may happen to a job. Pure: no clock, no process, no file, no network.

A spec is checked, events move the job through the table in `states.lifecycle`, and a trace of those
events can be replayed anywhere.
"""

from typing import TYPE_CHECKING

from states.lazy import lazy

if TYPE_CHECKING:
    from states.errors import (
        EntryError,
        IllegalEvent,
        NewerEntry,
        PikaciError,
        SpecError,
        TraceError,
        WritableWorkspace,
    )
    from states.job import Job, Phase, fold, step
    from states.lifecycle import TABLE, TERMINAL, State
    from states.outcome import EXIT_CODES, Failure, FailureKind, Outcome, Verdict, overall
    from states.rules import CheckedSpec, check
    from states.spec import InstanceType, JobSpec, Mount, OutputOf

__all__ = [
    "EXIT_CODES",
    "TABLE",
    "TERMINAL",
    "CheckedSpec",
    "EntryError",
    "Failure",
    "FailureKind",
    "IllegalEvent",
    "InstanceType",
    "Job",
    "JobSpec",
    "Mount",
    "NewerEntry",
    "Outcome",
    "OutputOf",
    "Phase",
    "PikaciError",
    "SpecError",
    "State",
    "TraceError",
    "Verdict",
    "WritableWorkspace",
    "check",
    "fold",
    "overall",
    "step",
]

_HOMES = {
    "states.errors": (
        "EntryError",
        "IllegalEvent",
        "NewerEntry",
        "PikaciError",
        "SpecError",
        "TraceError",
        "WritableWorkspace",
    ),
    "states.job": ("Job", "Phase", "fold", "step"),
    "states.lifecycle": ("TABLE", "TERMINAL", "State"),
    "states.outcome": ("EXIT_CODES", "Failure", "FailureKind", "Outcome", "Verdict", "overall"),
    "states.rules": ("CheckedSpec", "check"),
    "states.spec": ("InstanceType", "JobSpec", "Mount", "OutputOf"),
}


if not TYPE_CHECKING:  # to mypy every name would be one of ours
    __getattr__ = lazy(__name__, _HOMES)
