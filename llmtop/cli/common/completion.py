"""``llmtop completion SHELL``: the script that makes a shell complete llmtop's command line."""

from __future__ import annotations

import click

from llmtop.cli.common.program import NAME

VARIABLE = "_LLMTOP_COMPLETE"  # set by the script; the name is the one that click reads


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
    # The method of the base class only fills in the template. The one for bash also runs bash to
    # check its version, but this machine may have no bash.
    click.echo(ShellComplete.source(found(ctx.find_root().command, {}, NAME, VARIABLE)))
