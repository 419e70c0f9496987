"""``llmtop help [COMMAND]``: the same as ``llmtop [COMMAND] --help``."""

from __future__ import annotations

import click

from llmtop import UsageError


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="[COMMAND]", nargs=-1)
@click.pass_context
def command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of llmtop, or of COMMAND."""
    parent = ctx.parent
    assert parent is not None and isinstance(parent.command, click.Group)
    plain = [word for word in words if not word.startswith("-")]
    if not plain:
        click.echo(parent.get_help())
        return
    if len(plain) > 1:
        raise UsageError(f"help is for one command, not {len(plain)}")
    name, found, _ = parent.command.resolve_command(parent, plain)
    assert found is not None and name is not None
    settings = {**parent.command.context_settings, **found.context_settings}
    with click.Context(found, info_name=name, parent=parent, **settings) as inner:
        click.echo(found.get_help(inner))
