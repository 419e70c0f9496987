"""``llmtop requests NAME``: the requests inside an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag, note, table
from llmtop.cli.observe.inside_query import ask_inside
from llmtop.wording.format import ABSENT, count, latency
from llmtop.wording.steps import missing_lines

if TYPE_CHECKING:
    from llmtop.engines.core.requests import RequestRow, RequestSort, RequestTable
    from llmtop.engines.introspection.engine_inside import EngineInside

HEADS = (
    "ID",
    "RANK",
    "STATE",
    "PHASE",
    "AGE",
    "WAITED",
    "TTFT",
    "PROMPT",
    "CACHED",
    "OUTPUT",
    "KV BLOCKS",
    "PREEMPTED",
    "PRIORITY",
)
SORTS = ("age", "kv", "tokens", "wait")
MOST = 50


@click.command()
@click.argument("name", metavar="NAME", shell_complete=engine_names)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="age",
    show_default=True,
    help="Show first: the oldest, most KV blocks, most tokens, or longest waiting.",
)
@click.option(
    "--limit", type=click.IntRange(1, MOST), default=MOST, show_default=True, help="Number of rows."
)
@json_flag
def command(name: str, sort: str, limit: int, as_json: bool) -> None:
    """Print the requests inside NAME: state, age, tokens, KV blocks.

    Only for engines that llmtop started. Prompts and answers are never read. `llmtop abort` ends
    requests by their id.
    """

    async def ask(inside: EngineInside, who: str) -> RequestTable:
        return await inside.requests(cast("RequestSort", sort), limit)

    found = ask_inside(name, ask)
    if as_json:
        from llmtop.cli.common.inside_documents import requests_document

        document(requests_document(name, found))
        return
    if found.rows:
        absent = [
            *(["RANK"] if not any(row.rank for row in found.rows) else []),
            *(["PRIORITY"] if not any(row.priority for row in found.rows) else []),
        ]
        heads = [head for head in HEADS if head not in absent]
        cells = [dict(zip(HEADS, _cells(row), strict=True)) for row in found.rows]
        table(heads, [[cell[head] for head in heads] for cell in cells])
    shown, total = len(found.rows), found.running + found.waiting
    click.echo(
        f"running {count(found.running)}  waiting {count(found.waiting)}"
        + (f"  ({shown} of {count(total)} shown)" if shown < total else "")
    )
    examined = found.waiting_looked_at
    if examined is not None and examined < found.waiting:
        note(f"only the first {count(examined)} requests of the queue were examined")
    for line in missing_lines(found.missing):
        note(line)


def _cells(row: RequestRow) -> list[str]:
    most = "" if row.max_tokens is None else f"/{count(row.max_tokens)}"
    return [
        row.id,
        str(row.rank),
        row.state,
        row.phase or ABSENT,
        latency(row.age_s),
        latency(row.waited_s),
        latency(row.ttft_s),
        count(row.prompt_tokens),
        count(row.cached_tokens),
        f"{count(row.generated_tokens)}{most}",
        count(row.kv_blocks),
        count(row.preemptions),
        count(row.priority),
    ]
