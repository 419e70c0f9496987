"""``llmtop record NAME -o FILE``: what an engine does, into a file."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmtop import LlmtopError
from llmtop.cli.common.engine_names import engine_names
from llmtop.cli.common.output import note
from llmtop.cli.common.param_types import Span
from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.common.trust_option import cacert_flag
from llmtop.cli.engines.running import why_absent
from llmtop.cli.screen.record_option import path_of

if TYPE_CHECKING:
    from llmtop.operations.wiring import Wiring

DAY_S = 24 * 3600
SELDOM_S = 300.0  # between two lines where there is no terminal to replace one


@click.command()
@click.argument("name", metavar="NAME|URL", shell_complete=engine_names)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="File to write (.llmtop).",
)
@click.option(
    "--for",
    "duration",
    default=3600.0,
    type=Span(1, 30 * DAY_S),
    help="How long to record; Ctrl+C ends it earlier.  [default: 1h]",
)
@click.option("--interval", type=Span(0.2, 60), help="Time between two samples.  [default: 1.0]")
@cacert_flag
def command(name: str, output: str, duration: float, interval: float | None) -> None:
    """Record what an engine does into FILE.

    The file holds its numbers, options, GPUs, log lines, the load that llmtop sends and every
    change; no prompts, no answers, no secrets. One hour takes about 2 MB. Show it with
    `llmtop replay FILE`.
    """
    from llmtop.operations.wiring import Wiring

    path = path_of(output, "-o")
    assert path is not None
    wiring = Wiring()
    if not wiring.is_url(name):
        absent = why_absent(wiring, wiring.owned(name))
        if absent:
            note(absent)
    trouble = asyncio.run(_record(wiring, name, path, duration, interval or 1.0))
    if trouble:
        raise LlmtopError(trouble)
    note(f"recorded {path}, {size(path.stat().st_size)}; show it: llmtop replay {path}")


async def _record(wiring: Wiring, name: str, path: Path, duration: float, interval: float) -> str:
    """Until the time is over or a signal comes; what went wrong, "" when nothing did."""
    from llmtop.tui.dashboard.headless import watch

    endpoint = await wiring.endpoint(name)
    line, ended = StatusLine(quiet=False, every_s=SELDOM_S), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    with watch(wiring, [endpoint], interval) as runtime:
        source = runtime.recordings.begin(path)
        beats = asyncio.create_task(runtime.sampling.run())
        began = time.monotonic()
        try:
            while not ended.is_set() and source.running and not beats.done():
                passed = time.monotonic() - began
                if passed >= duration:
                    break
                if line.due:
                    so_far = f"{passed:.0f} of {duration:.0f} s, {size(source.bytes_written)}"
                    line.show(f"{so_far}; Ctrl+C ends it")
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), min(0.5, duration - passed + 0.01))
        finally:
            line.clear()
            runtime.recordings.end()
            beats.cancel()
            with suppress(asyncio.CancelledError):
                await beats
            await runtime.sampling.close()
            await wiring.fetch.close()
    return source.trouble


def size(written: int) -> str:
    """``12 kB``, ``3.4 MB``."""
    return f"{written / 1e3:.0f} kB" if written < 1e6 else f"{written / 1e6:.1f} MB"
