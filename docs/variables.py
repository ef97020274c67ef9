"""The environment variables that pikaci reads: what each of them does.

tests/unit/test_variables.py compares this with the code.
"""

from __future__ import annotations

from collections.abc import Mapping

MIGRATION = "migration.md"
# By the heading of their table; each table has the names, and what they do.
VARIABLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "pikaci": (
        ("PIKACI_STATE_ROOT", "The state root, if --state-root is not given."),
        ("PIKACI_HOST", "The host that runs the guests, if --host is not given."),
        ("PIKACI_HOSTS", "The file of hosts. Default: ~/.config/pikaci/hosts.toml."),
        ("PIKACI_WAIT_DELETED", "With `1`: `run` and `rerun` have --wait-deleted."),
        ("PIKACI_DEBUG", "Show the traceback of an internal error."),
    ),
    "The terminal": (
        ("NO_COLOR, FORCE_COLOR", "Turn colours off, or on for files and pipes. NO_COLOR wins."),
        ("TERM", "With `dumb`, no colours, and no board of running jobs."),
        ("COLUMNS", "The width of a trace that is written to a file or a pipe."),
        ("PYTHONIOENCODING", "The encoding of stdout and stderr, if not the locale's."),
    ),
    "Directories": (
        ("XDG_STATE_HOME", "Where the state roots are by default, in the directory pikaci."),
        ("XDG_CONFIG_HOME", "Where pikaci/hosts.toml and git's own settings are."),
        ("XDG_CACHE_HOME", "Where the file systems of built images are cached, in pikaci."),
        ("XDG_RUNTIME_DIR", "Where the private sockets of connections to other hosts are."),
        ("HOME, TMPDIR", "The defaults of the directories above, and of temporary ones."),
    ),
    "Incus, ssh and other programs": (
        ("PATH", "Where incus, git and ssh are found. git is not looked for in the workspace."),
        ("INCUS_SOCKET, INCUS_DIR", "Another socket or directory of the Incus daemon."),
        ("SSH_AUTH_SOCK, USER, LOGNAME, LANG", "Passed on to ssh and incus, which get few others."),
        ("SUDO_UID", "Under sudo: job files of this user are trusted, too."),
        (
            "INCUS_CONF, LXD_DIR, DOCKER_HOST, CONTAINER_HOST",
            "Read only to refuse jobs that mount what they name.",
        ),
    ),
    "The network, for jobs with egress": (
        (
            "http_proxy, https_proxy, all_proxy, no_proxy",
            "The proxy that connections go through, in lower or upper case.",
        ),
        ("SSL_CERT_FILE", "The authorities that guests trust. Default: the system's."),
        ("SSL_CERT_DIR", "For the incus command alone: the authorities of its remotes."),
        (
            "PIP_CONFIG_FILE, PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_TRUSTED_HOST",
            "pip's index, for jobs with host_mirrors.",
        ),
        ("NPM_CONFIG_REGISTRY, npm_config_registry", "npm's registry, for the same jobs."),
        ("GOPROXY, GOSUMDB", "Go's module proxy and checksum database, for the same jobs."),
        (
            "CARGO_REGISTRY_DEFAULT, CARGO_REGISTRIES_*_INDEX, CARGO_REGISTRIES_*_PROTOCOL",
            "cargo's registries, for the same jobs.",
        ),
    ),
    "systemd": (
        ("NOTIFY_SOCKET", "Where `pikaci serve` says that it is ready, stops, or is alive."),
        ("WATCHDOG_USEC, WATCHDOG_PID", "How often `pikaci serve` must say that it is alive."),
        (
            "JOURNAL_STREAM",
            "If it names stdout, the log of `pikaci serve` is JSON with priorities.",
        ),
        ("CREDENTIALS_DIRECTORY", "A --token-file in this directory may be readable by its group."),
    ),
    "Set by pikaci's own scripts, or removed": (
        ("_PIKACI_COMPLETE", "Set by the completion script of the shell."),
        (
            "PIKACI_REMOTE_LINUX_VM_INCUS_MODE",
            f"Removed: every command refuses to run with it ({MIGRATION}).",
        ),
    ),
}


def variable_tables() -> str:
    """The tables of environment.md."""
    lines = []
    for heading, variables in VARIABLES.items():
        lines += [f"## {heading}", "", "| variable | what it does |", "|---|---|"]
        for names, text in variables:
            shown = ", ".join(f"`{name}`" for name in names.split(", "))
            lines.append(
                f"| {shown} | {text.replace('migration.md', '[migration.md](migration.md)')} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip()
