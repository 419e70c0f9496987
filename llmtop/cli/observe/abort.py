"""``llmtop abort NAME ID...``: end requests inside an engine."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from llmtop import UsageError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import Span
from llmtop.cli.observe.inside_query import ask_inside
from llmtop.printable import clean
from llmtop.wording.format import count, latency

if TYPE_CHECKING:
    from llmtop.engines.core.requests import Aborted
    from llmtop.engines.introspection.engine_inside import EngineInside

ALL_S = 1.0  # in a busy queue every request waits this long, so a shorter time aborts all


@click.command()
@click.argument("name", metavar="NAME", shell_complete=engine_names)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--waiting-longer-than",
    "longer_s",
    type=Span(0.0),
    help="Abort each request that has waited longer than this for its first admission.",
)
@click.option("--yes", is_flag=True, help="Do not ask if the time is less than a second.")
@click.option("--reason", default="", help="Why, for the engine's log.")
@json_flag
def command(
    name: str,
    ids: tuple[str, ...],
    longer_s: float | None,
    yes: bool,
    reason: str,
    as_json: bool,
) -> int:
    """End requests inside NAME, by the exact ids that `llmtop requests` shows.

    The client receives the tokens so far, with finish_reason abort, or an error if there are none.
    The KV blocks are free at the next step. Only for engines that llmtop started.

    The exit code is 1 when a request could not be aborted. A request that had already ended is not
    a failure.
    """
    from llmtop.operations.inside import abort_all, abort_waiting

    if not ids and longer_s is None:
        raise UsageError("there is nothing to abort", "give an id, or --waiting-longer-than 30s")
    if "" in ids:
        raise UsageError("an id is empty", "`llmtop requests` shows the ids")
    if ids and longer_s is not None:
        raise UsageError("give ids or --waiting-longer-than, not both")

    if longer_s is not None and longer_s < ALL_S and not yes:
        _confirm_all(name)

    async def ask(inside: EngineInside, who: str) -> Aborted:
        if longer_s is None:
            return await abort_all(inside, ids, who, reason)
        why = reason or f"waited longer than {latency(longer_s)}"
        return await abort_waiting(inside, longer_s, who, why, asyncio.sleep)

    done = ask_inside(name, ask)
    if as_json:
        from llmtop.cli.common.inside_documents import abort_document

        document(abort_document(name, done))
    else:
        _print_result(done, longer_s)
    for ident, why in done.refused:
        note(f"not aborted: {ident}: {why}")
    return int(bool(done.refused))


def _confirm_all(name: str) -> None:
    """Ask for consent to abort all waiting requests. Raises UsageError without a terminal."""
    words = f"this aborts all waiting requests of {name}, also new ones"
    if not sys.stdin.isatty():
        raise UsageError(words, "add --yes to agree, or give a longer time, such as 30s")
    click.confirm(f"{words}. Continue?", abort=True, err=True)


def _print_result(done: Aborted, longer_s: float | None) -> None:
    for ident in done.aborted if longer_s is None else ():
        click.echo(f"aborted {clean(ident)}")
    if longer_s is not None:
        number = len(done.aborted)
        click.echo(
            f"aborted {count(number)} request{'' if number == 1 else 's'} that had waited longer"
            f" than {latency(longer_s)}"
        )
        return
    for ident in done.ended_before:
        click.echo(f"{clean(ident)} had already ended, or this engine never had it")
