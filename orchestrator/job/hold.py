"""A job whose guest is held for a shell: before its command, or after it. Pure.

The guest itself ends the job, when the last shell has left or nobody has come. So nothing is left
of a pikaci that is killed.
"""

from __future__ import annotations

import shlex
from collections.abc import Container

import msgspec

from orchestrator.attempt.shell import SHELL_ENDS
from states.spec import MAX_NAME, MAX_TIMEOUT_SECS, JobSpec

# In the log, when a shell may enter.
HELD = b"[pikaci] the guest is held for a shell\n"
# For a shell to come, and for all that is done in it.
COMES_SECS = 60
HELD_SECS = 4 * 3600

_HOLD = """\
shells() {
  local file words
  for file in /proc/[0-9]*/cmdline; do
    { mapfile -d '' -t words <"$file"; } 2>/dev/null
    [[ ${words[*]} != *"SHELL_ENDS" ]] || return 0
  done
  return 1
}
exec 9<> <(:) # never readable: programs may not be in the job's PATH
pause() { read -r -t 0.2 -u 9 || :; }
echo "$1"
for ((tries = $2 * 5; tries > 0; tries--)); do
  shells && break
  pause
done
((tries > 0)) || echo "[pikaci] nobody entered the guest"
while shells; do pause; done""".replace("SHELL_ENDS", SHELL_ENDS)


def held(spec: JobSpec, *, after: bool) -> JobSpec:
    """The job with its world, but for its command: that is run first, if `after`, and then held.

    It leaves nothing: no artifacts, no output, no reports, and its guest is never kept.
    """
    hold = shlex.join(["-c", _HOLD, "pikaci-hold", HELD.decode().strip(), str(COMES_SECS)])
    command, secs = f'exec "$BASH" {hold}', HELD_SECS
    if after:
        # As the runner starts it.
        own = f'"$BASH" --noprofile --norc -eo pipefail -lc {shlex.quote(spec.command)}'
        command = (
            f'{own} || code=$?; echo "[pikaci] the command exited with ${{code:-0}}"; {command}'
        )
        secs += spec.timeout_secs
    return msgspec.structs.replace(
        spec,
        command=command,
        timeout_secs=min(secs, MAX_TIMEOUT_SECS),
        retries=0,
        artifacts=(),
        junit=(),
        output=None,
        max_age_secs=None,
        keep="never",
        keep_secs=None,
    )


def held_name(name: str, taken: Container[str]) -> str:
    """The name of the job that is held for this one: another one, as its history is another."""
    number, tail = 1, "-shell"
    while (found := name[: MAX_NAME - len(tail)] + tail) in taken:
        number += 1
        tail = f"-shell-{number}"
    return found
