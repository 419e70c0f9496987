"""``llmtop up [NAME...]``: start the engines that ``llmtop.toml`` defines; wait for readiness."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import SECONDS
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.config.file import Config
    from llmtop.operations.fleet import Outcome
    from llmtop.operations.wiring import Wiring


def entry(outcome: Outcome) -> dict[str, Any]:
    """One engine of ``up --json`` and ``down --json``; docs/reference/json.md has the fields."""
    from llmtop.cli.engines import ps

    return {
        "name": outcome.name,
        "outcome": outcome.word,
        "reason": outcome.reason or None,
        "hint": outcome.hint or None,
        "log_excerpt": list(outcome.excerpt),
        "engine": ps.entry(outcome.status) if outcome.status is not None else None,
    }


def selected(config: Config, names: tuple[str, ...]) -> list[str]:
    """These names, or without any all engines of the file. UsageError for an unknown name."""
    for name in names:
        config.engine(name)
    chosen = list(dict.fromkeys(names)) or list(config.table.engines)
    if not chosen:
        raise UsageError(f"{config.file} defines no engine", "write a table [engines.NAME]")
    return chosen


def print_failures(outcomes: list[Outcome]) -> int:
    """Print the reason and the hint of each failure. Returns the exit code."""
    for outcome in outcomes:
        if outcome.failed:
            note(f"llmtop: {outcome.name}: {outcome.reason}")
            if outcome.hint:
                note(f"        {outcome.hint}")
            for line in outcome.excerpt:
                note(f"        | {line}")
    return int(any(outcome.failed for outcome in outcomes))


@click.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option(
    "--ready-timeout",
    default=1800.0,
    show_default=True,
    type=SECONDS,
    help="Time to wait for readiness.",
)
@config_flag
@json_flag
def command(
    names: tuple[str, ...], ready_timeout: float, config_file: str | None, as_json: bool
) -> int:
    """Start the engines of llmtop.toml, all or those named, and return when they are ready.

    Engines that already run are left as they are. If one fails, the others still start, and the
    exit code is 1. The engines keep running; `llmtop` shows them, `llmtop down` stops them.
    """
    from llmtop.config.engines import launch_spec
    from llmtop.operations.fleet import Fleet
    from llmtop.operations.wiring import Wiring

    config = read(config_file, need=True)
    chosen = selected(config, names)
    wiring = Wiring()
    fleet = Fleet(wiring.supervisor, note, gpu_count=wiring.gpu_count)
    try:
        outcomes = fleet.up(
            chosen, lambda name: launch_spec(config, name, wiring.environ), ready_timeout
        )
    except KeyboardInterrupt:
        note("the engines are still starting; `llmtop ps` shows them, `llmtop down` stops them")
        raise
    outcomes = asyncio.run(with_versions(wiring, outcomes))
    if as_json:
        shared = list(fleet.crowds())
        document({"engines": [entry(outcome) for outcome in outcomes], "warnings": shared})
    return print_failures(outcomes)


async def with_versions(wiring: Wiring, outcomes: list[Outcome]) -> list[Outcome]:
    """The same outcomes, with the versions that the ready engines report."""
    from llmtop.engines.core.records import State
    from llmtop.engines.metrics.detection import version_of

    async def ask(outcome: Outcome) -> Outcome:
        status = outcome.status
        if status is None or status.state is not State.READY or status.record.version:
            return outcome
        version = await version_of(status.record.url, wiring.fetch)
        if not version:
            return outcome
        try:
            record = wiring.supervisor.learn(status.record, version)
        except LlmtopError:  # the version is only information
            return outcome
        return replace(outcome, status=replace(status, record=record))

    try:
        return list(await asyncio.gather(*(ask(outcome) for outcome in outcomes)))
    finally:
        await wiring.fetch.close()
