"""``llmtop why NAME|URL``: what limits an engine, and which option would change it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click

from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import document, json_flag
from llmtop.cli.common.param_types import Span
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.engines.running import require_answering

if TYPE_CHECKING:
    from llmtop.diagnosis.causes import Explanation
    from llmtop.engines.core.endpoint import Endpoint

WINDOW_S = 5.0


@click.command()
@click.argument("target", metavar="NAME|URL", shell_complete=engine_names)
@cacert_flag
@click.option(
    "--window",
    default=WINDOW_S,
    show_default=True,
    type=Span(1, 600),
    help="How long to watch an engine that does not show its steps.",
)
@json_flag
def command(target: str, window: float, as_json: bool) -> None:
    """Explain why an engine is slow.

    Prints its state, the causes with their share of the time of requests, the evidence, and the
    option that would change the main cause. An engine that llmtop started shows its steps, and the
    answer needs some seconds. What the option would change is a forecast, or else an estimate. Any
    other engine is judged by its metrics alone.
    """
    from llmtop.operations.insight.knob_forecast import with_forecasts
    from llmtop.operations.insight.why import explain_engine
    from llmtop.operations.wiring import Wiring

    async def gather() -> tuple[Endpoint, Explanation]:
        wiring = Wiring()
        endpoint = await wiring.endpoint(target)
        require_answering(wiring, endpoint)
        session = wiring.session(endpoint)
        try:
            seen = await explain_engine(wiring, endpoint, session, window, time.time)
            return endpoint, await with_forecasts(wiring, endpoint, session, seen)
        finally:
            await session.close()
            await wiring.fetch.close()

    endpoint, found = asyncio.run(gather())
    name, simulated = endpoint.name, endpoint.adapter.simulated
    if as_json:
        from llmtop.cli.common.inside_documents import why_document

        document(why_document(name, simulated, found))
        return
    from llmtop.operations.insight.why import report

    for line in report(name, simulated, found):
        click.echo(line)
