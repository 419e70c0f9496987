"""``llmtop export``: serve metrics that engines do not publish, for a Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from llmtop import UsageError
from llmtop.cli.common.configured import config_flag, read
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import note
from llmtop.cli.common.param_types import Real, Span
from llmtop.cli.common.trust_option import cacert_flag

ADDRESS = "127.0.0.1:9470"


@click.command()
@click.argument("names", metavar="[NAME|URL...]", nargs=-1, shell_complete=engine_names)
@click.option(
    "--listen",
    default=ADDRESS,
    show_default=True,
    metavar="ADDRESS",
    help="Address and port of the page.",
)
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=Span(0.5, 60),
    help="Time between two samples of the engines.",
)
@click.option(
    "--gpu-hour", type=Real(min=0), metavar="PRICE", help="Price of one GPU hour, for cost."
)
@click.option(
    "--detach",
    is_flag=True,
    help="Serve in the background, by the history recorder, while an engine of llmtop runs.",
)
@click.option(
    "--stop", "end", is_flag=True, help="Stop serving in the background (after --detach)."
)
@cacert_flag
@config_flag
def command(
    names: tuple[str, ...],
    listen: str,
    interval: float,
    gpu_hour: float | None,
    detach: bool,
    end: bool,
    config_file: str | None,
) -> None:
    """Export metrics of engines at http://ADDRESS/metrics.

    Without names it exports all engines that llmtop starts. It publishes what engines do not:
    exact latencies, the causes of slowness, steps, refusals, options and cost. It listens on this
    machine only, unless --listen names another address. The page has no password.
    """
    from llmtop.cli.fleet import export_detached
    from llmtop.exporter.engine_families import MOST_ENGINES
    from llmtop.exporter.page import address
    from llmtop.operations.monitoring.recorder_export import RecorderExport
    from llmtop.operations.wiring import Wiring

    host, port = address(listen)
    if (detach or end) and names:
        flag = "--detach" if detach else "--stop"
        raise UsageError(f"{flag} applies to all engines of llmtop", "omit the names")
    if detach and end:
        raise UsageError("give --detach or --stop, not both")
    if end:
        export_detached.end(Wiring())
        return
    if len(set(names)) > MOST_ENGINES:
        raise UsageError(
            f"at most {MOST_ENGINES} engines can be exported, not {len(set(names))}",
            "export the others with another --listen",
        )
    if gpu_hour is None:
        gpu_hour = read(config_file).table.screen.gpu_hour or None
    if detach:
        if not port:
            raise UsageError("--detach needs a fixed port", f"write it like --listen {ADDRESS}")
        export_detached.begin(Wiring(), RecorderExport(host, port, gpu_hour), url_of(host, port))
        return
    asyncio.run(export(names, host, port, interval, gpu_hour))


def url_of(host: str, port: int) -> str:
    """The URL of the server, with brackets around an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def export(
    names: Sequence[str], host: str, port: int, interval: float, gpu_hour: float | None
) -> None:
    """Serve the metrics until SIGINT or SIGTERM.

    interval: seconds between samples. gpu_hour: price of one GPU hour, None: unknown.
    """
    import signal

    from llmtop.cli.fleet.collected import collecting
    from llmtop.cli.fleet.state_lines import StateLines
    from llmtop.exporter.engine_families import families
    from llmtop.exporter.page import Page
    from llmtop.operations.wiring import Wiring

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    wiring = Wiring()
    async with collecting(wiring, names, interval) as collected:
        watches, lines = collected.watches, StateLines(note)
        page = Page(lambda: families(watches.facts(gpu_hour), watches.orphans))
        await page.start(host, port)
        note(f"metrics at {url_of(host, page.port)}/metrics")
        if not collected.store.engines:
            note("no engine runs; engines that llmtop starts will be added")
        try:
            while not ended.is_set():
                await watches.sample()
                lines.observe(collected.store.engines)
                try:
                    await asyncio.wait_for(ended.wait(), interval)
                except TimeoutError:
                    continue
        finally:
            await page.close()
