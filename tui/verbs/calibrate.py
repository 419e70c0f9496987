"""``llmtop calibrate``: how much load this machine can carry as a client. Touches no engine."""

from __future__ import annotations

import dataclasses

import click

from llmtop.tui.verbs.output import document, json_flag


@click.command()
@click.option("--workers", type=click.IntRange(1, 64), help="Load processes.")
@json_flag
def command(workers: int | None, as_json: bool) -> int:
    """Say how much load this machine can carry as a client.

    For a second the load's own workers are sent to a small server inside llmtop. What is found is
    remembered for an hour, and `llmtop load`, `saturate` and `compare` are held against it.
    """
    from llmtop.tui.calibrated import calibrated, calibration_words
    from llmtop.tui.verbs.aim import StatusLine
    from llmtop.tui.wiring import Wiring

    wiring, line = Wiring(), StatusLine(quiet=as_json)
    found, _ = calibrated(
        wiring.state.root,
        wiring.processes.boot_id,
        workers,
        anew=True,
        on_left=lambda left: line.show(f"calibrating this client, {left:.0f}s left"),
    )
    line.clear()
    if as_json:
        document({**dataclasses.asdict(found), "streams_of_50_tokens_per_s": found.streams})
    else:
        words = calibration_words(found)
        click.echo(words[0].upper() + words[1:] + ".")
    return 0
