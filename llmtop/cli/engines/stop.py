"""``llmtop stop NAME...``: end engines and all processes that they started, and no others."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import SECONDS
from llmtop.engines.core.records import EngineRecord, State

if TYPE_CHECKING:
    from llmtop.operations.wiring import Wiring

OVER = (State.STOPPED, State.FAILED, State.LOST)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=engine_names)
@click.option(
    "--all", "everyone", is_flag=True, help="Stop all running engines; asks first on a terminal."
)
@click.option(
    "--grace",
    default=10.0,
    show_default=True,
    type=SECONDS,
    help="Time between SIGTERM and SIGKILL.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_flag
def command(names: tuple[str, ...], everyone: bool, grace: float, yes: bool, as_json: bool) -> int:
    """Stop the engines NAME...: SIGTERM, and after --grace SIGKILL to all their processes.

    Several engines are stopped at the same time. If one cannot be stopped, the others still are,
    and the exit code is 1.
    """
    from llmtop.cli.engines.ps import entry
    from llmtop.operations.wiring import Wiring

    wiring = Wiring()
    supervisor = wiring.supervisor
    found = selected(wiring, names, everyone)
    if everyone and found and not yes and sys.stdin.isatty():
        listed = ", ".join(record.name for record in found)
        click.confirm(f"Stop {listed}?", abort=True, err=True)
    if not found:
        note("no engine is running")

    def end(record: EngineRecord) -> EngineRecord | LlmtopError:
        try:
            return stop_one(wiring, record, grace)
        except LlmtopError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(found))) as pool:
        ends = list(pool.map(end, found))
    failed = [end for end in ends if isinstance(end, LlmtopError)]
    single = len(names) == 1 and not everyone
    if single and failed:
        raise failed[0]
    stopped = [end for end in ends if isinstance(end, EngineRecord)]
    if as_json:
        entries = [entry(supervisor.status(record)) for record in stopped]
        document(entries[0] if single else {"engines": entries})
    for before, after in zip(found, ends, strict=True):
        if isinstance(after, LlmtopError):
            note(f"llmtop: {before.name}: {after.message}")
            if after.hint:
                note(f"        {after.hint}")
        else:
            if not as_json:
                note(f"{before.name} is stopped")
            warn_unrecorded(wiring, before.name)
    return int(bool(failed))


def selected(wiring: Wiring, names: tuple[str, ...], everyone: bool) -> list[EngineRecord]:
    """The engines to stop. Raises UsageError for an unknown name, and without any name."""
    supervisor = wiring.supervisor
    if everyone and names:
        raise UsageError("give names or --all, not both")
    if not everyone and not names:
        running = [record.name for record in supervisor.records() if record.ended_at is None]
        hint = f"name it: {', '.join(running)}; or --all" if running else "none is running"
        raise UsageError("no engine was given", hint)
    if not everyone:
        return [supervisor.find(name) for name in dict.fromkeys(names)]
    return [
        record for record in supervisor.records() if supervisor.status(record).state not in OVER
    ]


def stop_one(wiring: Wiring, found: EngineRecord, grace: float) -> EngineRecord:
    """Stop one engine. grace: seconds between SIGTERM and SIGKILL.

    Raises LlmtopError when it cannot be stopped, or when another llmtop is restarting it.
    """
    supervisor = wiring.supervisor
    pid = supervisor.restart_journal.starts_again(found.name)
    if pid is not None and supervisor.status(found).state in (State.STOPPING, State.STOPPED):
        raise LlmtopError(
            f"another llmtop (pid {pid}) is restarting {found.name!r}: it is down and will start",
            "stop it after it has started: llmtop ps",
        )
    return supervisor.stop(found, grace_s=grace, on_note=note)


def warn_unrecorded(wiring: Wiring, name: str) -> None:
    """Print a warning when the record does not show the end of the engine."""
    kept = wiring.state.load(name)
    if kept is None or kept.ended_at is None:
        note(
            "llmtop: the stop could not be recorded (is the disk full?): `ps` will show it as lost"
        )
