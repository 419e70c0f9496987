"""``llmtop calibrate``: how much load this machine can send as a client. Needs no engine."""

from __future__ import annotations

import click
from msgspec import structs

from llmtop.cli.common.output import document, json_flag


@click.command()
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Number of load processes (default: spare cores)."
)
@json_flag
def command(workers: int | None, as_json: bool) -> int:
    """Measure how much load this machine can send as a client.

    For one second, load processes read from a small server inside llmtop. The result is kept for
    an hour. `llmtop load`, `saturate` and `compare` use it to report results that are
    client-bound: limited by this machine and not by the engine.
    """
    from llmtop.cli.common.status_line import StatusLine, soon
    from llmtop.operations.calibrated import calibrated, calibration_words
    from llmtop.operations.wiring import Wiring

    wiring, line = Wiring(), StatusLine(quiet=as_json)
    found, _ = calibrated(
        wiring.state.root,
        wiring.processes.boot_id,
        workers,
        recalibrate=True,
        on_left=lambda left: line.show(f"calibrating this client, {soon(left)}"),
    )
    line.clear()
    if as_json:
        document({**structs.asdict(found), "streams_of_50_tokens_per_s": found.streams})
    else:
        words = calibration_words(found)
        click.echo(words[0].upper() + words[1:] + ".")
    return 0
