"""``llmtop record NAME -o FILE``: record an engine into a file."""

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
LINE_S = 300.0  # interval of progress lines without a terminal


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

    The file contains its numbers, options, GPUs, log lines, the load that llmtop sends and every
    change. It contains no prompts, answers or secrets. One hour takes about 2 MB. Show it with
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
    error = asyncio.run(_record(wiring, name, path, duration, interval or 1.0))
    if error:
        raise LlmtopError(error)
    note(f"recorded {path}, {size(path.stat().st_size)}; show it: llmtop replay {path}")


async def _record(wiring: Wiring, name: str, path: Path, duration: float, interval: float) -> str:
    """Record until the time is over or a signal arrives. Returns the error, "" for none.

    duration, interval: seconds.
    """
    from llmtop.tui.dashboard.headless import watch

    endpoint = await wiring.endpoint(name)
    line, ended = StatusLine(quiet=False, every_s=LINE_S), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    with watch(wiring, [endpoint], interval) as runtime:
        source = runtime.recordings.begin(path)
        sampling = asyncio.create_task(runtime.sampling.run())
        began = time.monotonic()
        try:
            while not ended.is_set() and source.running and not sampling.done():
                passed = time.monotonic() - began
                if passed >= duration:
                    break
                if line.due:
                    progress = f"{passed:.0f} of {duration:.0f} s, {size(source.bytes_written)}"
                    line.show(f"{progress}; Ctrl+C ends it")
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), min(0.5, duration - passed + 0.01))
        finally:
            line.clear()
            runtime.recordings.end()
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling
            await runtime.sampling.close()
            await wiring.fetch.close()
    return source.trouble


def size(written: int) -> str:
    """Format a number of bytes: ``12 kB``, ``3.4 MB``."""
    return f"{written / 1e3:.0f} kB" if written < 1e6 else f"{written / 1e6:.1f} MB"
