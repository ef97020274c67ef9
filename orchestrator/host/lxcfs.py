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
THEIR_HOOK = "/usr/share/lxcfs/lxc.reboot.hook"
HOOK = Path("/usr/local/libexec/pikaci-lxcfs-hook")
COMMAND = "pikaci setup --fast-stop"

_SCRIPT = f"""\
#!/bin/sh
# Installed by `{COMMAND}`: guests of pikaci stop without the pause of lxcfs's hook.
# Every other container has lxcfs's own hook.
case $LXC_NAME in pikaci-* | *_pikaci-*) exit 0 ;; esac
[ ! -x {THEIR_HOOK} ] || exec {THEIR_HOOK} "$@"
"""
_CONFIG = f"""\
# Installed by `{COMMAND}`: pikaci's hook instead of that of {THEIRS}.
lxc.hook.post-stop =
lxc.hook.post-stop = {HOOK}
"""


def stop_row(included: Path = INCLUDED, hook: Path = HOOK) -> Row | None:
    """What doctor says of the hook; None where lxcfs has none that ours could replace."""
    subject = "lxcfs hook"
    if (included / OURS).exists() and not os.access(hook, os.X_OK):
        return Row(
            "missing", subject, f"{hook} is missing: containers do not stop cleanly", COMMAND
        )
    try:
        if _post_stop(included / THEIRS) != [THEIR_HOOK]:
            return None
    except OSError:
        return None
    if _are_ours(included, hook):
        return Row("ok", subject, "pikaci's guests stop without its pause")
    return Row("ok", subject, f"each guest stops 0.5 s later than with `{COMMAND}`")


def install_hook(included: Path = INCLUDED, hook: Path = HOOK) -> bool:
    """Have LXC use our hook from now on; False if it does already. Needs root.

    Raises `PikaciError` where lxcfs has no hook, or a file before ours sets another one: ours would
    unset it.
    """
    try:
        if not (included / THEIRS).exists() or not _post_stop(included / THEIRS):
            raise PikaciError(
                f"there is no hook of lxcfs in {included}",
                resolution="leave out --fast-stop: guests stop without a pause here",
            )
        for other in sorted(included.glob("*.conf")):
            known = [THEIR_HOOK] if other.name == THEIRS else []
            if other.name < OURS and _post_stop(other) != known:
                raise PikaciError(
                    f"{other} sets another post-stop hook, which --fast-stop would unset",
                    resolution="leave out --fast-stop",
                )
        if _are_ours(included, hook):
            return False
        _make_parents(hook)
        # The script first: a container that stops in between must find it.
        _replace(hook, _SCRIPT, mode=0o755)
        _replace(included / OURS, _CONFIG, mode=0o644)
    except OSError as error:
        raise PikaciError(
            f"the hook cannot be installed: {error}",
            resolution="be root; if /usr is read-only, leave out --fast-stop",
        ) from error
    return True


def _post_stop(file: Path) -> list[str]:
    """The post-stop hooks that a file of LXC's configuration sets."""
    pairs = (line.partition("=") for line in file.read_text(errors="replace").splitlines())
    return [value.strip() for key, _, value in pairs if key.strip() == "lxc.hook.post-stop"]


def _are_ours(included: Path, hook: Path) -> bool:
    files = ((hook, _SCRIPT, 0o755), (included / OURS, _CONFIG, 0o644))
    return all(_is(file, text, mode) for file, text, mode in files)


def _is(file: Path, text: str, mode: int) -> bool:
    try:
        return file.read_bytes() == text.encode() and file.stat().st_mode & 0o777 == mode
    except OSError:
        return False


def _make_parents(file: Path) -> None:
    """Whatever the umask is: a container of any user runs the hook."""
    for directory in reversed(file.parents):
        if not directory.exists():
            directory.mkdir()
            directory.chmod(0o755)


def _replace(file: Path, text: str, *, mode: int) -> None:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False) as new:
        try:
            new.write(text)
            new.flush()
            os.fchmod(new.fileno(), mode)
            os.replace(new.name, file)
        except OSError:
            os.unlink(new.name)
            raise
