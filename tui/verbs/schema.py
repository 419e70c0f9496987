"""``llmtop schema``: the JSON schemas of ``llmtop.toml`` and of what is saved."""

from __future__ import annotations

import json

import click


@click.command()
@click.option(
    "--of",
    type=click.Choice(["config", "requests"]),
    default="config",
    show_default=True,
    help="llmtop.toml, or a line of `llmtop load --save`.",
)
def command(of: str) -> None:
    """Print the JSON schema of llmtop.toml, by which editors complete and check it."""
    from llmtop.loadgen import rows
    from llmtop.tui.config.schema import schema

    click.echo(json.dumps(schema() if of == "config" else rows.schema(), indent=2))
