"""``llmtop forget NAME...``: remove the records and logs of engines that have ended."""

from __future__ import annotations

import click

from llmtop import UsageError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=engine_names)
@click.option(
    "--stopped", is_flag=True, help="Forget all engines that have ended: stopped, failed or lost."
)
@json_flag
def command(names: tuple[str, ...], stopped: bool, as_json: bool) -> None:
    """Remove the records and logs of engines that have ended.

    Afterwards `llmtop ps` does not list them and `llmtop restart` cannot start them again. A
    running engine is refused; `llmtop stop` stops it.
    """
    from llmtop.cli.engines.stop import OVER
    from llmtop.engines.supervision.forgetting import forget, remembers
    from llmtop.operations.wiring import Wiring

    wiring = Wiring()
    supervisor = wiring.supervisor
    if stopped and names:
        raise UsageError("give names or --stopped, not both")
    statuses = [supervisor.status(record) for record in supervisor.records()]
    over = [status.record.name for status in statuses if status.state in OVER]
    if not names and not stopped:
        hint = f"these have ended: {', '.join(over)}; or --stopped" if over else "none has ended"
        raise UsageError("no engine was given", hint)
    chosen = over if stopped else list(dict.fromkeys(names))
    for name in chosen:
        if not remembers(wiring.state, name):
            supervisor.find(name)  # raises an error that lists the known names
    for name in chosen:
        forget(name, wiring.state, wiring.processes)
        if not as_json:
            note(f"{name} was removed")
    if as_json:
        document({"forgotten": chosen})
    elif not chosen:
        note("no engine has ended")
