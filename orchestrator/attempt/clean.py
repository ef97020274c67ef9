"""Makes a guest new again, before it becomes an image: its job's traces go, its work stays.

The script runs in the guest, and needs only the tools of the guest contract. A job that ran as root
may have replaced any of them, so a guest from the image is tried before anybody uses the image.
"""

from __future__ import annotations

import re

from orchestrator.attempt.plan import Plan
from orchestrator.contract import contract

# A copy of the runner's private directory would make the next guest's runner join this job, and
# never run its own. The guest is stopped by force after this: nothing is written at a shutdown.
#
# Prints the bytes and the names of its root file system. The bytes are those of an archive: Incus
# writes the holes of sparse files as zeros.
_SCRIPT = """\
set -e
private=$1 artifacts=$2 target=$3 user=$4; shift 4
rm -rf -- "$private" "$artifacts" "$target"
install -d -m 0755 -o "${user%:*}" -g "${user#*:}" -- "$artifacts" "$target"
# Directories that Incus made to mount something: the next guest may lack the mount.
for path; do umount -- "$path" && rmdir -- "$path" || :; done 2>/dev/null
for path in /tmp /var/tmp; do [ ! -d "$path" ] || find "$path" -xdev -mindepth 1 -delete; done
# It is a memory file system, except in a container without an init system.
mountpoint -q /run || find /run -xdev -mindepth 1 -maxdepth 1 ! -name current-system \\
  ! -name lock ! -name mount -exec rm -rf -- {} +
rm -rf /var/log/journal/*
[ ! -d /var/log ] || find /var/log -xdev ! -type d -delete
[ ! -e /etc/machine-id ] || : >/etc/machine-id
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
rm -f /var/lib/systemd/random-seed
# The runner's line for this guest's own name.
if [ -f /etc/hosts ] && [ ! -L /etc/hosts ]; then
  hosts=$(grep -vxF "127.0.1.1 $(cat /proc/sys/kernel/hostname)" /etc/hosts || :)
  printf '%s\\n' "$hosts" >/etc/hosts
fi
# On a full disk the next guest could not start, and Incus reads one very slowly.
head -c 16777216 /dev/zero >"$private" || { echo "its disk is full" >&2; exit 1; }
rm -f "$private"
echo "$(du -sx --apparent-size --block-size=1 /) $(du -sx --inodes /)"
"""


def clean_command(plan: Plan) -> tuple[str, ...]:
    """The command that makes the plan's guest new. What it prints is for `parse_size`."""
    ours = contract()
    user = f"{ours.user.uid}:{ours.user.gid}"
    emptied = (ours.private, ours.artifacts, "/cargo-target")
    theirs = {directory.path for directory in ours.directories}
    made = [path for path in plan.mounts if path not in theirs]
    return ("sh", "-c", _SCRIPT, "pikaci-clean", *emptied, user, *made)


def parse_size(printed: bytes) -> tuple[int, int] | None:
    """The bytes and the names of the guest's root, by what the command printed; None if neither."""
    found = re.fullmatch(rb"(\d{1,19})\s+/\s+(\d{1,19})\s+/\s*", printed)
    return (int(found[1]), int(found[2])) if found else None
