"""``llmtop up [NAME...]``: start the engines that ``llmtop.toml`` names, and wait for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.tui.verbs.configured import config_flag, read
from llmtop.tui.verbs.kinds import SECONDS
from llmtop.tui.verbs.output import document, json_flag, note
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.tui.config.file import Config
    from llmtop.tui.fleet import Outcome
    from llmtop.tui.wiring import Wiring


def entry(outcome: Outcome) -> dict[str, Any]:
    """One engine as ``up --json`` and ``down --json`` show it. docs/json.md has the fields."""
    from llmtop.tui.verbs import ps

    return {
        "name": outcome.name,
        "outcome": outcome.word,
        "reason": outcome.reason or None,
        "hint": outcome.hint or None,
        "engine": ps.entry(outcome.status) if outcome.status is not None else None,
    }


def meant(config: Config, names: tuple[str, ...]) -> list[str]:
    """The engines that are asked for: these, or all of the file. UsageError for an unknown one."""
    for name in names:
        config.engine(name)
    chosen = list(dict.fromkeys(names)) or list(config.table.engines)
    if not chosen:
        raise UsageError(f"{config.file} names no engine", "write a table [engines.NAME]")
    return chosen


def complain(outcomes: list[Outcome]) -> int:
    """One line for each that failed, one for the way out; the exit code."""
    for outcome in outcomes:
        if outcome.failed:
            note(f"llmtop: {outcome.name}: {outcome.reason}")
            if outcome.hint:
                note(f"        {outcome.hint}")
    return int(any(outcome.failed for outcome in outcomes))


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--ready-timeout", default=1800.0, show_default=True, type=SECONDS, metavar="SECONDS")
@config_flag
@json_flag
def command(
    names: tuple[str, ...], ready_timeout: float, config_file: str | None, as_json: bool
) -> int:
    """Start the engines of llmtop.toml, all or those named, and come back when they are ready.

    Those that run already are left as they are. One that fails does not stop the others; the
    exit code is then 1. They go on running; `llmtop` shows them, `llmtop down` stops them.
    """
    from llmtop.tui.config.engines import launch_spec
    from llmtop.tui.fleet import Fleet
    from llmtop.tui.wiring import Wiring

    config = read(config_file, need=True)
    chosen = meant(config, names)
    wiring = Wiring()
    fleet = Fleet(wiring.supervisor, note, gpu_count=wiring.gpu_count)
    try:
        outcomes = fleet.up(
            chosen, lambda name: launch_spec(config, name, wiring.environ), ready_timeout
        )
    except KeyboardInterrupt:
        note("what was started goes on starting; `llmtop ps` shows it, `llmtop down` ends it")
        raise
    outcomes = asyncio.run(learned(wiring, outcomes))
    if as_json:
        shared = list(fleet.crowds())
        document({"engines": [entry(outcome) for outcome in outcomes], "warnings": shared})
    return complain(outcomes)


async def learned(wiring: Wiring, outcomes: list[Outcome]) -> list[Outcome]:
    """The same, with the versions that the engines tell now that they are ready."""
    from llmtop.engines.recognise import version_of
    from llmtop.engines.records import State

    async def ask(outcome: Outcome) -> Outcome:
        status = outcome.status
        if status is None or status.state is not State.READY or status.record.version:
            return outcome
        version = await version_of(status.record.url, wiring.fetch)
        if not version:
            return outcome
        try:
            record = wiring.supervisor.learn(status.record, version)
        except LlmtopError:  # nothing depends on it
            return outcome
        return replace(outcome, status=replace(status, record=record))

    try:
        return list(await asyncio.gather(*(ask(outcome) for outcome in outcomes)))
    finally:
        await wiring.fetch.close()
