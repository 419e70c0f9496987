"""``llmtop completion SHELL``: the script that makes a shell complete llmtop's command line."""

from __future__ import annotations

import click

from llmtop.cli.common.program import NAME

VARIABLE = "_LLMTOP_COMPLETE"  # the script sets it; click reads it under this name


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options and engine names in SHELL.

    \b
        bash:  eval "$(llmtop completion bash)"      in ~/.bashrc
        zsh:   eval "$(llmtop completion zsh)"       in ~/.zshrc, after compinit
        fish:  llmtop completion fish > ~/.config/fish/completions/llmtop.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    # The base class only fills in the template. The one for bash would also run bash, to check its
    # version: the script may be written on a machine that has none.
    click.echo(ShellComplete.source(found(ctx.find_root().command, {}, NAME, VARIABLE)))
