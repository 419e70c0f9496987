"""``llmtop down [NAME...]``: stop the engines that ``llmtop.toml`` defines."""

from __future__ import annotations

import click

from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import SECONDS


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option(
    "--grace",
    default=10.0,
    show_default=True,
    type=SECONDS,
    help="Time between SIGTERM and SIGKILL.",
)
@config_flag
@json_flag
def command(names: tuple[str, ...], grace: float, config_file: str | None, as_json: bool) -> int:
    """Stop the engines of llmtop.toml, all or those named, with all processes that they started.

    Engines that the file does not define are not touched.
    """
    from llmtop.cli.start.up import entry, print_failures, selected
    from llmtop.operations.fleet import Fleet
    from llmtop.operations.wiring import Wiring

    config = read(config_file, need=True)
    outcomes = Fleet(Wiring().supervisor, note).down(selected(config, names), grace)
    if as_json:
        document({"engines": [entry(outcome) for outcome in outcomes]})
    elif not any(outcome.status is not None or outcome.failed for outcome in outcomes):
        note("none of these engines was running")
    return print_failures(outcomes)
