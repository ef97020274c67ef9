"""Why a command failed, in one line, from the end of its log; and what no reason may say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from orchestrator.attempt.diagnosis import FULL_POOL, KILLED, NO_MEMORY
from orchestrator.attempt.plan import Plan
from orchestrator.attempt.result import GuestResult
from orchestrator.attempt.secrets import SecretMissing, read_secrets
from orchestrator.log_end import read_log_end
from orchestrator.terminal import plain
from states.testcases import Case

OUT_OF_MEMORY = "the guest ran out of memory"
# How the runner's hints begin. They say what was used up at the command's end, which is the reason
# if the log gives none.
USED_UP = ("the guest's disk is full", "the guest ran out of processes", OUT_OF_MEMORY)
# What programs say of a full disk; the last is tar's, if a part of a block still had room.
DISK_FULL = ("no space left on device", "quota exceeded", ": wrote only ")
# What exit codes say of a process that the kernel ended. KILL and TERM are not among them:
# they come from somebody, for a reason of his own.
BY_SIGNAL = {
    132: "illegal instruction",
    134: "aborted",
    135: "bus error",
    136: "floating point exception",
    139: "segmentation fault",
}
# Shorter lines of a secret are in many logs by chance.
SHORTEST = 4


def reason_of(plan: Plan, result: GuestResult, log: Path) -> str:
    """The line of the log that says why the command failed, or what else does; "" if nothing.

    A reason goes where the log does not. So lines with a value of the job's secrets are left out,
    and there is no reason if the values are not known any more. Reads the disk, and the secrets.
    """
    if result.exit_code == KILLED and result.hint.startswith((NO_MEMORY, OUT_OF_MEMORY)):
        return OUT_OF_MEMORY
    # Here: its rules take long to compile, and most commands pass.
    from states.log_reasons import MAX_LINES, find_reason

    hidden = _lines_of_secrets(plan)
    if hidden is None:
        return ""
    lines = read_log_end(log, lines=MAX_LINES).lines
    found = find_reason(["" if any(one in line for one in hidden) else line for line in lines])
    used_up = (one for one in USED_UP if result.hint.startswith(one))
    return found or next(used_up, BY_SIGNAL.get(result.exit_code, ""))


def incomplete_log(result: GuestResult, reason: str) -> str:
    """What to say of a log that the guest could not write; with a guess why, unless it is known."""
    brief = "the guest could not write all of its log"
    hinted = result.hint.startswith((*USED_UP, NO_MEMORY, FULL_POOL))
    said = any(words in reason.lower() for words in DISK_FULL)
    return brief if hinted or said else f"{brief}: was its disk full?"


def without_secrets(plan: Plan, cases: Sequence[Case]) -> Sequence[Case]:
    """Test cases, without each message that has a value of the job's secrets.

    Without all messages if the values are not known any more. Reads the secrets.
    """
    if not plan.secrets:
        return cases
    hidden = _lines_of_secrets(plan)

    def is_harmless(message: str) -> bool:
        shown = plain(message)
        return hidden is not None and not any(one in shown for one in hidden)

    return [
        case if is_harmless(case.message) else msgspec.structs.replace(case, message="")
        for case in cases
    ]


def _lines_of_secrets(plan: Plan) -> list[str] | None:
    """The lines of the secrets' values, as a log shows them; None if these are not known."""
    try:
        values = read_secrets(plan.secrets, {}).values()
    except SecretMissing:
        return None
    lines = [plain(line) for value in values for line in value.splitlines()]
    return [line for line in lines if len(line) >= SHORTEST]
