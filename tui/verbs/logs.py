"""``llmtop logs NAME``: what an engine printed, with nothing in it that a terminal would obey."""

from __future__ import annotations

import contextlib
from pathlib import Path
from threading import Event

import click


@click.command()
@click.argument("name")
@click.option("-f", "--follow", "follow_on", is_flag=True, help="Go on as lines are written.")
@click.option("-n", "--lines", default=200, show_default=True, type=click.IntRange(0, 1_000_000))
def command(name: str, follow_on: bool, lines: int) -> None:
    """Print the end of NAME's log; control characters and escape sequences are taken out."""
    from llmtop.engines.logs import follow, tail
    from llmtop.tui.wiring import Wiring

    path = Path(Wiring().supervisor.find(name).log_path)
    # Ctrl+C is how one leaves a log that is followed: no failure.
    with contextlib.suppress(KeyboardInterrupt):
        for line in follow(path, Event(), lines=lines) if follow_on else tail(path, lines):
            click.echo(line)
