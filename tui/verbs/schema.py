"""``llmtop schema``: the JSON schema of ``llmtop.toml``, for editors."""

from __future__ import annotations

import json

import click


@click.command()
def command() -> None:
    """Print the JSON schema of llmtop.toml, by which editors complete and check it."""
    from llmtop.tui.config.schema import schema

    click.echo(json.dumps(schema(), indent=2))
