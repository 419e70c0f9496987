"""Shell completion of a recording: a file, or the name of an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem


def recording_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The examples that start with ``incomplete``; the shell adds its files."""
    from click.shell_completion import CompletionItem

    from llmtop.history.examples import names

    found = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
    return [*found, CompletionItem(incomplete, type="file")]
