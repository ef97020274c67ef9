"""Which variables a job may have: those that bash and the kernel pass on to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MAX_VARIABLE_BYTES = 131_071  # with its name; the kernel refuses an exec with a longer string
# Of all variables together. The runner takes 1,000,000 bytes, of which pikaci's own have the rest.
MAX_BYTES = 999_000
RESERVED_PREFIX = "PIKACI_"

# Bash refuses to set some of these, and keeps others for itself: it drops the value, or puts its
# own in place of it, without a word. Tried with bash 5.2.
KEPT_BY_BASH = frozenset(
    """
    _ BASH BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND
    BASH_EXECUTION_STRING BASH_LINENO BASH_MONOSECONDS BASH_SOURCE BASH_SUBSHELL BASH_VERSINFO
    BASH_VERSION COMP_WORDBREAKS DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD
    IFS LINENO OLDPWD OPTERR OPTIND PIPESTATUS PPID PS1 PS2 PWD RANDOM SECONDS SHELLOPTS SHLVL
    SRANDOM UID
    """.split()
)


def refusal(name: str) -> tuple[str, str] | None:
    """Why a job cannot have a variable of this name, and what is allowed; None if it can."""
    if name.startswith(RESERVED_PREFIX):
        return "is reserved", f"names that do not start with {RESERVED_PREFIX}"
    if name in KEPT_BY_BASH:
        return "cannot be set: bash keeps this name for itself", "another name"
    return None


def size_of(name: str, value: str) -> int:
    """Bytes of one variable, with its name and the `=`."""
    return len(name) + 1 + len(value.encode())


def total_size(env: Mapping[str, str]) -> int:
    """Bytes of all variables of a job. Pikaci's own are not counted, and may be missing."""
    return sum(
        size_of(name, value)
        for name, value in {"CI": "true", **env}.items()
        if not name.startswith(RESERVED_PREFIX)
    )
