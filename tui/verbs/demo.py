"""``llmtop demo``: the whole tool on a simulated engine; needs no GPU and no model."""

from __future__ import annotations

import click

from llmtop import UsageError
from llmtop.tui.verbs.screen import ScreenFlags, screen_flags
from llmtop.tui.verbs.touring import TourFlags, speed_flag

# Steps of the shape are slow enough to watch, and end well past what the virtual GPU carries.
SHAPE = "hold 4 for 5s, ramp 4..320 over 75s, hold 320"


@click.command()
@click.option(
    "--gpu",
    default="h200",
    show_default=True,
    type=click.Choice(["a100-80gb", "h100", "h200"]),
    help="The virtual card.",
)
@click.option(
    "--model",
    default="llama-3.1-8b",
    show_default=True,
    type=click.Choice(["llama-3.1-8b", "llama-3.1-70b"]),
    help="The shape of the virtual model.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 8000, or the next one free.")
@click.option("--shape", default=SHAPE, show_default=True, help="The load over time.")
@screen_flags
@click.option("--no-load", is_flag=True, help="Start without the load ramp.")
@click.option("--tour", is_flag=True, help="A show of five minutes with captions; any key ends it.")
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
) -> None:
    """Show a simulated engine under a load ramp; every key works. Nothing real is measured."""
    from llmtop.engines.ports import next_free
    from llmtop.engines.records import LaunchSpec
    from llmtop.loadgen import shape as shapes
    from llmtop.loadgen.plan import Plan, Prompts
    from llmtop.tui.verbs import dashboard
    from llmtop.tui.verbs.run import free_name
    from llmtop.tui.wiring import Wiring, fresh_seed

    dashboard.require_terminal()
    if tour and screen.readonly:
        raise UsageError("a tour changes what it shows", "leave --tour or --readonly away")
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
                *("--gpu", gpu, "--max-num-seqs", "512"),
                *("--speculative", "ngram:4", "--startup-s", "0.3"),
            ),
        )
    )
    dashboard.show(
        wiring,
        endpoints=[wiring.owned(record.name)],
        select=record.name,
        launched=record,
        plan=None if no_load or tour else Plan(shape=shape, seed=fresh_seed()),
        prompts=Prompts(prompt_tokens=(448, 576), output_tokens=(112, 144)),
        screen=screen,
        tour=TourFlags(tour_speed) if tour else None,
    )
