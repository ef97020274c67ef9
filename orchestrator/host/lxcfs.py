"""A shorter lxcfs hook for pikaci's guests on this machine.

LXC runs lxcfs's post-stop hook for every container that stops. It sleeps for half a second, in case
the container starts again at once, which pikaci's guests do not. No setting of a single container
replaces it without replacing Incus's own hook as well, so a file beside lxcfs's names ours instead.
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
COMMAND = "pikaci setup --fast-stop"

_SCRIPT = """\
#!/bin/sh
# Installed by `pikaci setup --fast-stop`: guests of pikaci stop without the pause of lxcfs's hook.
# Every other container has lxcfs's own hook.
case $LXC_NAME in pikaci-* | *_pikaci-*) exit 0 ;; esac
[ ! -x /usr/share/lxcfs/lxc.reboot.hook ] || exec /usr/share/lxcfs/lxc.reboot.hook "$@"
"""
_CONFIG = f"""\
# Installed by `{COMMAND}`: pikaci's hook instead of that of {THEIRS}.
lxc.hook.post-stop =
lxc.hook.post-stop = {HOOK}
"""


def stop_row(included: Path = INCLUDED, hook: Path = HOOK) -> Row | None:
    """What doctor says of the hook; None where lxcfs has none."""
    subject = "lxcfs hook"
    if (included / OURS).exists() and not os.access(hook, os.X_OK):
        return Row(
            "missing", subject, f"{hook} is missing: containers do not stop cleanly", COMMAND
        )
    if not (included / THEIRS).exists():
        return None
    if _are_ours(included, hook):
        return Row("ok", subject, "pikaci's guests stop without its pause")
    return Row("ok", subject, f"each guest stops 0.5 s later than with `{COMMAND}`")


def install_hook(included: Path = INCLUDED, hook: Path = HOOK) -> bool:
    """Have LXC use our hook from now on; False if it does already. Needs root.

    Raises `PikaciError` where lxcfs has no hook, or another file before ours sets one: ours would
    unset it.
    """
    if not (included / THEIRS).exists():
        raise PikaciError(
            f"there is no hook of lxcfs in {included}",
            resolution="leave out --fast-stop: guests stop without a pause here",
        )
    for other in sorted(included.glob("*.conf")):
        if other.name < OURS and other.name != THEIRS and "lxc.hook.post-stop" in other.read_text():
            raise PikaciError(
                f"{other} sets a post-stop hook as well, which --fast-stop would unset",
                resolution="leave out --fast-stop",
            )
    if _are_ours(included, hook):
        return False
    try:
        hook.parent.mkdir(parents=True, exist_ok=True)
        # The script first: a container that stops in between must find it.
        _replace(hook, _SCRIPT, mode=0o755)
        _replace(included / OURS, _CONFIG, mode=0o644)
    except OSError as error:
        raise PikaciError(f"the hook cannot be installed: {error}", resolution="be root") from error
    return True


def _are_ours(included: Path, hook: Path) -> bool:
    files = ((hook, _SCRIPT), (included / OURS, _CONFIG))
    return all(file.exists() and file.read_text() == text for file, text in files)


def _replace(file: Path, text: str, *, mode: int) -> None:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False) as new:
        new.write(text)
    os.chmod(new.name, mode)
    os.replace(new.name, file)
