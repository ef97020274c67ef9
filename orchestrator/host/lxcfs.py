"""Shorter lxcfs hooks for pikaci's guests on this machine.

LXC runs lxcfs's hooks for every container that starts and stops. The first starts some twenty
programs, to mount the files of /proc that show the guest's limits. The second sleeps for half a
second, in case the container starts again at once. Debian's LXC has no setting of a single
container for this that leaves Incus's own hooks alone, so a file beside lxcfs's names ours instead.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from orchestrator.host.row import Row
from states.errors import PikaciError

# LXC includes all files of the directory in alphabetical order: ours comes right after lxcfs's.
INCLUDED = Path("/usr/share/lxc/config/common.conf.d")
THEIRS, OURS = "00-lxcfs.conf", "00-lxcfs.pikaci.conf"
HOOK = Path("/usr/local/libexec/pikaci-lxcfs-hook")
COMMAND = "pikaci setup --fast-hooks"

_SCRIPT = """\
#!/bin/sh
# Installed by `pikaci setup --fast-hooks`. It does for a guest of pikaci what lxcfs's own hooks do,
# with fewer programs and without a pause. For every other container it runs lxcfs's own hook.
type=${LXC_HOOK_TYPE:-$3} theirs=/usr/share/lxcfs/lxc.reboot.hook
[ "$type" != mount ] || theirs=/usr/share/lxcfs/lxc.mount.hook
[ -x "$theirs" ] || exit 0
case $LXC_NAME in
pikaci-* | *_pikaci-*) ;;
*) exec "$theirs" "$@" ;;
esac
[ "$type" = mount ] || exit 0
# Without a cgroup namespace the hook has more to do.
[ -n "$LXC_CGNS_AWARE" ] && [ -f /proc/self/ns/cgroup ] && cd -P "$LXC_ROOTFS_MOUNT" ||
  exec "$theirs" "$@"
bind() { # SOURCE NAME: as NAME of the same directory there, which `mount -a` must not know yet
  at=$PWD${1#/var/lib/lxcfs}
  [ ! -e "$at/$2" ] || echo "$1/$2 $at/./$2 none bind 0 0"
}
{
  for file in /var/lib/lxcfs/proc/*; do bind "${file%/*}" "${file##*/}"; done
  devices=/var/lib/lxcfs/sys/devices/system
  if [ -f $devices/cpu/uevent ]; then
    bind $devices cpu
  elif [ -d $devices/cpu ]; then
    for file in $devices/cpu/*; do bind "${file%/*}" "${file##*/}"; done
  fi
  [ ! -d "$PWD/var/lib/lxcfs/" ] || echo "/var/lib/lxcfs $PWD/var/lib/./lxcfs none bind 0 0"
} | mount -n --no-canonicalize -a -T /proc/self/fd/0 || exec "$theirs" "$@"
"""
_CONFIG = f"""\
# Installed by `{COMMAND}`: pikaci's hook instead of the two of {THEIRS}.
lxc.hook.mount =
lxc.hook.mount = {HOOK}
lxc.hook.post-stop =
lxc.hook.post-stop = {HOOK}
"""


def hooks_row(included: Path = INCLUDED, hook: Path = HOOK) -> Row | None:
    """What doctor says of the hooks; None where lxcfs has none that could be shorter."""
    subject = "lxcfs hooks"
    if (included / OURS).exists() and not os.access(hook, os.X_OK):
        return Row("missing", subject, f"{hook} is missing: no container starts", COMMAND)
    if not (included / THEIRS).exists():
        return None
    if _are_ours(included, hook):
        return Row("ok", subject, "pikaci's guests have shorter ones")
    return Row("ok", subject, f"lxcfs's own: each guest stops 0.5 s later than with `{COMMAND}`")


def install_hooks(included: Path = INCLUDED, hook: Path = HOOK) -> bool:
    """Have LXC use our hook from now on; False if it does already. Needs root.

    Raises `PikaciError` where lxcfs has no hooks, or another file before ours sets some: ours would
    unset them.
    """
    if not (included / THEIRS).exists():
        raise PikaciError(
            f"there are no hooks of lxcfs in {included}",
            resolution="leave out --fast-hooks: this machine needs no shorter ones",
        )
    for other in sorted(included.glob("*.conf")):
        if other.name < OURS and other.name != THEIRS and "lxc.hook." in other.read_text():
            raise PikaciError(
                f"{other} sets hooks as well, which --fast-hooks would unset",
                resolution="leave out --fast-hooks",
            )
    if _are_ours(included, hook):
        return False
    try:
        hook.parent.mkdir(parents=True, exist_ok=True)
        # The script first: a container that starts in between must find it.
        _replace(hook, _SCRIPT, mode=0o755)
        _replace(included / OURS, _CONFIG, mode=0o644)
    except OSError as error:
        raise PikaciError(
            f"the hooks cannot be installed: {error}", resolution="be root"
        ) from error
    return True


def _are_ours(included: Path, hook: Path) -> bool:
    files = ((hook, _SCRIPT), (included / OURS, _CONFIG))
    return all(file.exists() and file.read_text() == text for file, text in files)


def _replace(file: Path, text: str, *, mode: int) -> None:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False) as new:
        new.write(text)
    os.chmod(new.name, mode)
    os.replace(new.name, file)
