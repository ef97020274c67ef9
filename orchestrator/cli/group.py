"""The group of all commands. Each one's module is imported when it is called, and not before."""

from __future__ import annotations

import importlib
import os

import click

REMOVED_MODE = "PIKACI_REMOTE_LINUX_VM_INCUS_MODE"

# name: (module, what `--help` says of it); each module has the command as `command`.
COMMANDS = {
    "init": ("init", "Write a first job file for this project."),
    "run": ("run", "Run jobs from the job file, or one command."),
    "status": ("status", "Show the newest run, or the run or job that you name."),
    "list": ("list", "List runs and their jobs."),
    "logs": ("logs", "Print a job's log; -f follows it."),
    "artifacts": ("artifacts", "List or copy a job's artifacts."),
    "outputs": ("outputs", "List the outputs that jobs made for other jobs."),
    "trace": ("trace", "Show what happened to a job, and where its time went."),
    "history": ("history", "Show a job's results over time."),
    "flakes": ("flakes", "List jobs that passed and failed with the same inputs."),
    "shell": ("shell", "Open a shell in a job's guest."),
    "kept": ("kept", "List kept guests."),
    "release": ("release", "Delete kept guests."),
    "cancel": ("cancel", "Cancel jobs."),
    "rerun": ("rerun", "Rerun jobs of an earlier run."),
    "resume": ("resume", "Resume jobs of dead pikaci processes."),
    "serve": ("serve", "Run the service: HTTP API and web page."),
    "reap": ("reap", "Delete unneeded instances."),
    "gc": ("gc", "Delete old runs to free disk space."),
    "setup": ("setup", "Create what pikaci needs in Incus."),
    "host": ("host", "Add, list, check and remove hosts that run guests."),
    "image": ("image", "Build, import, list and check guest images."),
    "completion": ("completion", "Print the completion script for a shell."),
    "doctor": ("doctor", "Check what is missing, and show how to fix it."),
}


class Group(click.Group):
    """A group that names the nearest command for one that is not there."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            from states.mistakes import did_you_mean

            near = did_you_mean(args[0], known) or f"; the commands are: {', '.join(known)}"
            raise click.UsageError(f"there is no command {args[0]!r}{near}", ctx)
        return super().resolve_command(ctx, args)


class Commands(Group):
    """A group that knows its commands' names and helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"orchestrator.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, "-V", "--version", package_name="pikaci", message="pikaci %(version)s")
def pikaci() -> None:
    """Run CI jobs in throw-away Incus instances.

    \b
    pikaci init                write a pikaci.toml for this project
    pikaci run                 run every job of pikaci.toml
    pikaci run -- make test    run one command, without a job file
    """
    if os.environ.get(REMOVED_MODE) is not None:
        from orchestrator.errors import UsageError

        raise UsageError(
            f"{REMOVED_MODE} is set, but the modes were removed: there is one way to run a job",
            resolution=f"unset {REMOVED_MODE}",
        )
