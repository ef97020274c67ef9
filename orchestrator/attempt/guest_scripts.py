"""Scripts of the host that run in a job's guest, as arguments of a shell there. Pure.

So nothing is written into the guest, and they work with images of every minor contract version.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.contract import contract

NOT_READY = 75  # the readiness wait's own exit code (EX_TEMPFAIL)
NOT_BOOTED = 127  # the wait's commands are missing: at first, a NixOS guest has not even a shell
NO_DIRECTORY = 3  # the job left no directory that can be its output
# The wait prints this before it becomes the command that follows it.
IS_READY = b"ready\n"

# PATH for commands in the guest, the same as the runner gives its job. Incus's own default lacks
# the last directory, where NixOS has all programs, in VMs and in containers that are still booting.
GUEST_PATH = (
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
)

# The wait runs in the guest, because a guest with an init system creates the runner's directory at
# boot: one exec, no polling by the host. At the deadline it prints what is missing. After the
# mounts, `--` and a command may follow: the wait becomes it, and so one exec is both. What comes on
# its stdin is the command's.
_READY = """\
secs=$1 runner=$2 listen=$3 end=; shift 3
mounted() {
  while read -r _ _ _ _ at _; do [ "$at" != "$1" ] || return 0; done </proc/self/mountinfo
  mountpoint -q "$1" # by a link, or with a name that is written otherwise there
}
while :; do
  missing=
  [ -x "$runner" ] || missing="the runner $runner"
  for path; do
    [ "$path" != -- ] || break
    mounted "$path" || missing="${missing:-the mount $path}"
  done
  [ -n "$missing" ] || [ -z "$listen" ] || said=$($listen 2>&1 </dev/null) || missing="the way out
$said"
  [ -n "$missing" ] || break
  now=$(date +%s) || exit 127
  [ -n "$end" ] || end=$((now + secs))
  case $missing in *Traceback*) end=0;; esac
  [ "$now" -lt "$end" ] || { printf '%s' "$missing"; exit 75; }
  sleep 0.02
done
while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
[ $# -eq 0 ] || { shift; echo ready; exec "$@"; }"""

# A missing directory is the job's fault: it has an exit code that tar has not. A line is printed,
# because an empty output would be retried.
_PACK = """\
cd "$1" || { echo missing; exit 3; }
exec tar --create --file=- --format=gnu --one-file-system --hard-dereference --numeric-owner ."""


def wait_until_ready(secs: int, listen: str, mounts: Iterable[str]) -> tuple[str, ...]:
    """Wait up to `secs` for the runner and these mount points; then print what is missing.

    `listen` is a command that must succeed as well, "" for none. The caller may append `--` and the
    command that the wait is to become.
    """
    given = (str(secs), contract().runner, listen, *mounts)
    return ("sh", "-c", _READY, "pikaci-ready", *given)


def pack_tree(directory: str) -> tuple[str, ...]:
    """Print a tar archive of the directory; exit with `NO_DIRECTORY` if there is none."""
    return ("sh", "-c", _PACK, "pikaci-output", directory.rstrip("/"))
