"""``llmtop options NAME``: every option, its value, and how a change to it applies."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note, table
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.engines.running import why_absent
from llmtop.engines.core.options import Option, OptionValue
from llmtop.wording.outcomes import in_force
from llmtop.wording.sentences import left_words


def shown(value: OptionValue) -> str:
    """Format a value for a table or a sentence."""
    if value is None:
        return "--"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if isinstance(value, int) else str(value)


def entry(option: Option) -> dict[str, Any]:
    """One option as ``options --json`` shows it."""
    return {
        "name": option.name,
        "flag": option.spec.flag,
        "summary": option.spec.summary,
        "value": option.value,
        "launch": option.launch,
        "minimum": option.minimum,
        "maximum": option.maximum,
        "choices": list(option.spec.choices),
        "applies": option.applies.value,
        "pending": option.pending,
        "note": option.note or None,
        "ranks": [
            {"rank": one.rank, "value": one.value, "pending": one.pending} for one in option.ranks
        ],
    }


@click.command()
@click.argument("name", metavar="NAME|URL", shell_complete=engine_names)
@cacert_flag
@json_flag
def command(name: str, as_json: bool) -> None:
    """List the options of NAME: current value, launch value, and how a change applies.

    A change applies live, at the next step of the engine, or it needs a restart.
    """
    from llmtop.operations.wiring import Wiring

    async def gather() -> tuple[tuple[Option, ...], str, str]:
        wiring = Wiring()
        endpoint = await wiring.endpoint(name)
        session = wiring.session(endpoint)
        try:
            options, why_not = await session.options()
            why_not = why_absent(wiring, endpoint) or why_not
            left = (
                wiring.temporary_changes.left(endpoint.record)
                if endpoint.record is not None
                else ()
            )
            return options, why_not, left_words(name, left)
        finally:
            await session.close()
            await wiring.fetch.close()

    options, why_not, left = asyncio.run(gather())
    if left:
        note(left)
    if as_json:
        document({"name": name, "options": [entry(option) for option in options], "note": why_not})
        return
    rows = [
        [option.name, in_force(option, shown), shown(option.launch), option.applies.value]
        for option in options
    ]
    table(["OPTION", "VALUE", "LAUNCH", "APPLIES"], rows)
    for option in options:
        if option.note:
            click.echo(f"{option.name}: {option.note}")
    if why_not:
        note(why_not)
