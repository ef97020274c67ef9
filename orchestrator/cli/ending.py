"""Ends a command, and reports errors in a line or two.

No exception becomes a traceback, or exit code 1, which means that a job's command failed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TypeVar

import click

from orchestrator.cli.streams import NobodyReads, StreamBroken, drop, flush, open_streams
from orchestrator.errors import leaves
from states.errors import PikaciError

E = TypeVar("E", bound=BaseException)

DEBUG = "PIKACI_DEBUG"
# Set by the script of `pikaci completion`, which asks for words.
COMPLETION = "_PIKACI_COMPLETE"
TRACEBACK = "last-error.txt"
INTERRUPTED = 130
BROKEN_PIPE = 141  # as a shell says it of a program that SIGPIPE ended
INFRASTRUCTURE = 4


def run() -> int:
    """Run the command that the arguments name; its exit code."""
    try:
        from orchestrator.cli.group import pikaci

        open_streams()
        if COMPLETION in os.environ:
            drop(2)  # nothing but words to complete may reach the shell
        code = pikaci.main(prog_name="pikaci", standalone_mode=False) or 0
        flush()
    except BaseException as error:
        code = tell(error)
        with suppress(StreamBroken):
            flush()
    return code


def tell(error: BaseException) -> int:
    """Report on stderr what ended a command, in few lines; return its exit code.

    Never raises: what a full or closed stderr does not take is dropped.
    """
    try:
        return _tell(error)
    except MemoryError:
        with suppress(OSError):
            os.write(2, b"pikaci: there is not enough memory\n")
        return INFRASTRUCTURE
    except BaseException as another:
        told = f"pikaci: internal error: {error!r}, and while reporting it {another!r}"
        with suppress(OSError):
            os.write(2, ascii(told)[1:-1].encode() + b"\n")
        return INFRASTRUCTURE


def _tell(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else INFRASTRUCTURE
    if _first(error, KeyboardInterrupt) or _first(error, click.exceptions.Abort):
        return INTERRUPTED
    if _first(error, NobodyReads):
        return BROKEN_PIPE
    if wrong := _first(error, click.ClickException):
        _tell_usage(wrong)
        return wrong.exit_code
    if ours := _first(error, PikaciError):
        print_error(ours)
        return exit_code(ours)
    if refused := _first(error, OSError):
        where = f": {refused.filename}" if refused.filename else ""
        print_error(PikaciError(f"{refused.strerror or refused}{where}", resolution=_more(error)))
    elif _first(error, MemoryError):
        print_error(PikaciError("there is not enough memory"))
    else:
        bug = next(leaves(error))
        brief = f"internal error: {type(bug).__name__}: {bug}"
        print_error(PikaciError(brief, resolution=f"this is a bug in pikaci; {_more(error)}"))
    return INFRASTRUCTURE


def _tell_usage(wrong: click.ClickException) -> None:
    from orchestrator.cli.usage import wrong_usage

    asks_for_help = getattr(click.exceptions, "NoArgsIsHelpError", ())
    if isinstance(wrong, click.UsageError) and not isinstance(wrong, asks_for_help):
        print_error(wrong_usage(wrong))
        return
    with suppress(OSError, StreamBroken):
        wrong.show()


def exit_code(error: PikaciError) -> int:
    """2 for what the user must change, 5 for a file without jobs, 4 for everything else."""
    from orchestrator.errors import NoJobs, UsageError
    from states.errors import SpecError
    from states.outcome import EXIT_CODES, EXIT_NO_JOBS, Verdict

    if isinstance(error, UsageError | SpecError):
        return EXIT_CODES[Verdict.REJECTED]
    return EXIT_NO_JOBS if isinstance(error, NoJobs) else EXIT_CODES[Verdict.INFRASTRUCTURE]


def print_error(error: PikaciError) -> None:
    """Brief, details and resolution on stderr, as far as it takes them."""
    from orchestrator.terminal import plain

    lines = [f"pikaci: {plain(line)}" for line in error.headline.splitlines() or [""]]
    lines += [f"    {plain(line)}" for line in error.details.splitlines()]
    if error.resolution:
        lines.append(f"  -> {plain(error.resolution)}")
    with suppress(OSError, StreamBroken):
        click.echo("\n".join(lines), err=True)


def _more(error: BaseException) -> str:
    """Where the traceback is: shown if that was asked for, or in the state root if there is one."""
    import traceback

    from orchestrator.cli import options

    text = "".join(traceback.format_exception(error))
    if os.environ.get(DEBUG):
        with suppress(OSError, StreamBroken):
            click.echo(text, err=True)
        return "the traceback is above"
    root = options.last_state_root
    if root is not None and root.path.is_dir():
        path = root.path / TRACEBACK
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(OSError), open(os.open(path, flags, 0o600), "w", errors="replace") as file:
            file.write(text)
            return f"the traceback is in {path}"
    return f"{DEBUG}=1 shows the traceback"


def _first(error: BaseException, kind: type[E]) -> E | None:
    """The first error of a kind in what was raised; trio's nurseries group what tasks raise."""
    return next((leaf for leaf in leaves(error) if isinstance(leaf, kind)), None)
