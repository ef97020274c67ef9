"""What may happen to a job. Pure: no clock, no process, no file, no network.

A spec is checked, events move the job through the table in `states.lifecycle`, and a trace of those
events can be replayed anywhere.
"""

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
from states.spec import CheckedSpec, InstanceType, JobSpec, Mount, OutputOf, check

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
