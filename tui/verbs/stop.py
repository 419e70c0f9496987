"""``llmtop stop NAME``: end an engine, whatever it started, and nothing else."""

from __future__ import annotations

import click

from llmtop.tui.verbs.kinds import SECONDS
from llmtop.tui.verbs.output import document, json_flag, note


@click.command()
@click.argument("name")
@click.option(
    "--grace",
    default=10.0,
    show_default=True,
    type=SECONDS,
    metavar="SECONDS",
    help="Wait before SIGKILL.",
)
@json_flag
def command(name: str, grace: float, as_json: bool) -> None:
    """Stop the engine NAME: SIGTERM, a grace, then SIGKILL to everything that it started."""
    from llmtop import LlmtopError
    from llmtop.engines.records import State
    from llmtop.tui.verbs.ps import entry
    from llmtop.tui.wiring import Wiring

    wiring = Wiring()
    supervisor = wiring.supervisor
    found = supervisor.find(name)
    pid = supervisor.intents.starts_again(found.name)
    if pid is not None and supervisor.status(found).state in (State.STOPPING, State.STOPPED):
        raise LlmtopError(
            f"another llmtop (pid {pid}) is restarting {found.name!r}: it is down, and comes back",
            "stop it when it starts: llmtop ps",
        )
    record = supervisor.stop(found, grace_s=grace, on_note=note)
    if as_json:
        document(entry(supervisor.status(record)))
    else:
        note(f"{record.name} is stopped")
    kept = wiring.state.load(name)
    if kept is None or kept.ended_at is None:
        note("llmtop: that could not be written down (is the disk full?): `ps` will call it lost")
