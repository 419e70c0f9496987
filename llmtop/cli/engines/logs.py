"""``llmtop logs NAME``: the output of an engine, without control characters."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import click

from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.interrupts import INTERRUPTED


@click.command()
@click.argument("name", shell_complete=engine_names)
@click.option(
    "-f", "--follow", "follow_on", is_flag=True, help="Keep printing lines as they are written."
)
@click.option(
    "-n",
    "--lines",
    default=200,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Number of lines.",
)
def command(name: str, follow_on: bool, lines: int) -> int:
    """Print the end of NAME's log, without control characters and escape sequences."""
    from llmtop.engines.host.log_reader import follow, tail
    from llmtop.operations.wiring import Wiring

    path = Path(Wiring().supervisor.find(name).log_path)
    try:
        for line in follow(path, Event(), lines=lines) if follow_on else tail(path, lines):
            click.echo(line)
    except KeyboardInterrupt:
        if not follow_on:
            raise
        return INTERRUPTED  # Ctrl+C is the usual way to stop following: print no error
    return 0
