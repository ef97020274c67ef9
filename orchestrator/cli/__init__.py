"""The command line. It imports nothing before `main` can report what goes wrong."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.cli.group import pikaci

__all__ = ["main", "pikaci"]

# Objects that are made before the garbage collector looks for cycles. While modules are imported,
# Python's 700 take 7 ms of CPU time, and find nothing.
MADE_BETWEEN_LOOKS = 50_000


def speak_utf8() -> None:
    """Start again in Python's UTF-8 mode, where the locale has another encoding.

    What goes to a guest, into the journal and to Incus is UTF-8: the bytes of the command line must
    arrive as they were typed. stdout and stderr keep the encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    encoding = sys.stdout.encoding if sys.stdout else "ascii"
    environment = {"PYTHONIOENCODING": encoding, **os.environ}
    with contextlib.suppress(OSError):
        again = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, again, environment)  # noqa: S606


def main() -> None:
    """The `pikaci` command. Whatever ends it, it exits with a code that says how, told in words."""
    try:
        import gc  # here: the package has a module `gc` too

        gc.set_threshold(MADE_BETWEEN_LOOKS)
        speak_utf8()
        import signal

        from orchestrator.cli.ending import run

        code = run()
        with contextlib.suppress(ValueError):  # in a thread
            # An interrupt from here on has nothing to say.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        # Not even what tells of errors could be imported.
        with contextlib.suppress(OSError):
            os.write(2, ascii(f"pikaci: internal error: {error!r}")[1:-1].encode() + b"\n")
        code = 4
    sys.exit(code)


if not TYPE_CHECKING:  # to mypy every name would be one of ours

    def __getattr__(name: str) -> Any:
        if name == "pikaci":
            from orchestrator.cli.group import pikaci

            return pikaci
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
