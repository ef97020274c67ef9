"""`pikaci completion`: the script by which a shell completes words of pikaci."""

from __future__ import annotations

import click

from orchestrator.cli.ending import COMPLETION
from orchestrator.cli.usage import OneOf


@click.command("completion")
@click.argument("shell", type=OneOf(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion script for a shell: bash, zsh or fish.

    \b
    bash    pikaci completion bash > ~/.local/share/bash-completion/completions/pikaci
    zsh     pikaci completion zsh > a file _pikaci in a directory of $fpath
    fish    pikaci completion fish > ~/.config/fish/completions/pikaci.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from orchestrator.cli.group import pikaci

    script = get_completion_class(shell)
    assert script is not None
    # Not that of the class: bash's starts a bash to look at its version.
    click.echo(ShellComplete.source(script(pikaci, {}, "pikaci", COMPLETION)))
    return 0
