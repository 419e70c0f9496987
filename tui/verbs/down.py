"""``llmtop down [NAME...]``: stop the engines that ``llmtop.toml`` names."""

from __future__ import annotations

import click

from llmtop.tui.verbs.configured import config_flag, read
from llmtop.tui.verbs.kinds import SECONDS
from llmtop.tui.verbs.output import document, json_flag, note


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option(
    "--grace",
    default=10.0,
    show_default=True,
    type=SECONDS,
    metavar="SECONDS",
    help="Wait before SIGKILL.",
)
@config_flag
@json_flag
def command(names: tuple[str, ...], grace: float, config_file: str | None, as_json: bool) -> int:
    """Stop the engines of llmtop.toml, all or those named, each with everything that it started.

    Those that do not run are left alone; engines that the file does not name are, too.
    """
    from llmtop.tui.fleet import Fleet
    from llmtop.tui.verbs.up import complain, entry, meant
    from llmtop.tui.wiring import Wiring

    config = read(config_file, need=True)
    outcomes = Fleet(Wiring().supervisor, note).down(meant(config, names), grace)
    if as_json:
        document({"engines": [entry(outcome) for outcome in outcomes]})
    elif not any(outcome.status is not None or outcome.failed for outcome in outcomes):
        note("none of them was running")
    return complain(outcomes)
