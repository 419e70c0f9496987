"""``llmtop demo``: the dashboard on a simulated engine; needs no GPU and no model."""

from __future__ import annotations

import click

from llmtop import UsageError
from llmtop.cli.screen.record_option import path_of, record_flag
from llmtop.cli.screen.screen_options import ScreenFlags, screen_flags
from llmtop.cli.screen.tour_options import TourFlags, speed_flag
from llmtop.operations.demonstration import ENGINE, PROMPTS, SHAPE, TOUR_ENGINE


@click.command()
@click.option(
    "--gpu",
    default="h200",
    show_default=True,
    type=click.Choice(["a100-80gb", "h100", "h200"]),
    help="Model of the virtual GPU.",
)
@click.option(
    "--model",
    default="llama-3.1-8b",
    show_default=True,
    type=click.Choice(["llama-3.1-8b", "llama-3.1-70b"]),
    help="Size of the virtual model.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port (default: 8000, or the next free one)."
)
@click.option("--shape", default=SHAPE, show_default=True, help="Load over time.")
@record_flag
@screen_flags
@click.option("--no-load", is_flag=True, help="Start without load.")
@click.option(
    "--tour", is_flag=True, help="Show a tour with captions (five minutes); any key ends it."
)
@speed_flag
def command(
    gpu: str,
    model: str,
    port: int | None,
    shape: str,
    no_load: bool,
    tour: bool,
    tour_speed: float,
    screen: ScreenFlags,
    record_file: str | None,
) -> None:
    """Open the dashboard on a simulated engine under rising load. All keys work.

    It needs no GPU and no model. Its numbers come from a model of an engine, not from hardware.
    """
    from llmtop.cli.screen import dashboard
    from llmtop.cli.start.run import free_name
    from llmtop.engines.core.records import LaunchSpec
    from llmtop.engines.host.ports import next_free
    from llmtop.loadgen.workload import shape as shapes
    from llmtop.loadgen.workload.plan import Plan
    from llmtop.operations.wiring import Wiring, fresh_seed

    dashboard.require_terminal()
    if tour and screen.readonly:
        raise UsageError(
            "the tour changes options, which --readonly forbids", "omit --tour or --readonly"
        )
    shapes.parse(shape)
    wiring = Wiring()
    supervisor = wiring.supervisor
    living = {record.name for record in supervisor.records() if record.ended_at is None}
    record = supervisor.launch(
        LaunchSpec(
            kind="sim",
            name=free_name("demo", living),
            model=model,
            host="127.0.0.1",
            port=port or next_free("127.0.0.1", 8000),
            args=(
                *("--gpu", gpu, "--startup-s", "0.3"),
                *(TOUR_ENGINE if tour else ENGINE),
            ),
        )
    )
    dashboard.show(
        wiring,
        endpoints=[wiring.owned(record.name)],
        select=record.name,
        launched=record,
        plan=None if no_load or tour else Plan(shape=shape, seed=fresh_seed()),
        prompts=PROMPTS,
        screen=screen,
        tour=TourFlags(tour_speed) if tour else None,
        record=path_of(record_file),
        alerts=False,  # a demo sends no alerts
    )
