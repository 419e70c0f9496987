"""``llmtop schema``: the JSON schemas of ``llmtop.toml``, of saved requests, and of documents."""

from __future__ import annotations

import json

import click


@click.command()
@click.option(
    "--of",
    type=click.Choice(["config", "requests", "steps", "request-table", "abort", "why", "fleet"]),
    default="config",
    show_default=True,
    help="The configuration file, one line of `llmtop load --save` (requests), or the JSON of"
    " `llmtop steps`, `requests` (request-table), `abort`, `why` or `fleet`.",
)
def command(of: str) -> None:
    """Print a JSON schema. Editors use the one of llmtop.toml to complete and check the file."""
    from llmtop.cli.common import inside_documents
    from llmtop.config.schema import schema
    from llmtop.fleet import documents as fleet_documents
    from llmtop.loadgen.export import records

    makers = {"config": schema, "requests": records.schema, "fleet": fleet_documents.schema}
    found = makers[of]() if of in makers else inside_documents.schema(of)
    click.echo(json.dumps(found, indent=2))
