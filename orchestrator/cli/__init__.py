"""The command line. Nothing is imported before `main` can tell of what goes wrong with it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.cli.group import pikaci

__all__ = ["main", "pikaci"]


def main() -> None:
    """The `pikaci` command. Whatever ends it, it exits with a code that says how, told in words."""
    try:
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
