"""Measures the load that this machine can generate, against llmtop's own server."""

from __future__ import annotations

import os
import resource
import select
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from llmtop import LlmtopError
from llmtop.loadgen.client.file_limit import raise_limit
from llmtop.loadgen.client.paced_server import serving
from llmtop.loadgen.core.client_capacity import RATE, Calibration
from llmtop.loadgen.workers.load import Load, default_workers
from llmtop.loadgen.workload.plan import Plan, Prompts, Target

SECONDS = 1.0  # 1.7 s with the start of the workers: short enough to precede every load
WARM_UP_S = 0.4
STREAMS = 128  # 6,400 chunks a second: at most a third of a core, which the server sustains
OUR_FILES = 32  # open files of this process beside the streams, with a reserve
LEAST_STREAMS = 8  # 400 chunks a second: fewer would not reach LEAST_CHUNKS
LEAST_CHUNKS = 200  # with fewer, something other than the client was the limit

Serving = Callable[[float, float], AbstractContextManager[tuple[object, str]]]


def calibrate(
    workers: int | None = None,
    *,
    seconds: float = SECONDS,
    on_left: Callable[[float], None] = lambda left_s: None,
    server: Serving = serving,
    wall: Callable[[], float] = time.time,
) -> Calibration:
    """Load a paced server inside this process with real workers and read what they took. Blocks.

    No data leaves the machine. It measures CPU time for each chunk at a rate far below the limit:
    near the limit several chunks arrive in one read, which is cheaper than in a valid measurement.
    on_left: called with the seconds left. Raises LlmtopError without a result.
    """
    count = default_workers() if workers is None else max(1, workers)
    with room(STREAMS) as streams:
        return _try_out(count, streams, seconds, on_left, server, wall)


@contextmanager
def room(streams: int) -> Iterator[int]:
    """The streams that this process can serve, with a raised soft limit of open files. Raises
    LlmtopError if these are too few."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = raise_limit(streams + OUR_FILES) - OUR_FILES
    try:
        if most < LEAST_STREAMS:
            raise LlmtopError(
                "this client could not be calibrated: the limit of open files is reached",
                "raise the limit of this shell: ulimit -n",
            )
        yield min(streams, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _try_out(
    count: int,
    streams: int,
    seconds: float,
    on_left: Callable[[float], None],
    server: Serving,
    wall: Callable[[], float],
) -> Calibration:
    load_before = machine_load()
    with server(0.01, 1 / RATE) as (_, url):
        length = int(RATE * (seconds + WARM_UP_S))
        with Load(Target(url, "paced"), Prompts((3, 3), (length, length)), workers=count) as load:
            load.start(Plan(shape=f"hold {streams}"))
            until = time.monotonic() + WARM_UP_S + seconds
            measure_from = until - seconds
            before: list[tuple[int, int, int]] | None = None
            chunks, began = 0, 0.0
            while (left := until - time.monotonic()) > 0:
                select.select([load], [], [], min(0.1, left))
                load.poll()
                if before is None and time.monotonic() >= measure_from:
                    before, chunks = load.spent(), load.snapshot().output_tokens
                    began = time.monotonic()
                on_left(max(0.0, left))
            now = load.snapshot()
            grown = now.output_tokens - chunks
            rate = grown / (time.monotonic() - began)
            after = load.spent()
    spent = [
        (b[0] - a[0], b[1] - a[1], b[2] - a[2]) for a, b in zip(before or after, after, strict=True)
    ]
    # A worker that reported nothing had no core: its cost would appear as zero.
    reported = all(busy > 0 and span > 0 for busy, _, span in spent)
    if grown < LEAST_CHUNKS or now.failed or not reported:
        raise LlmtopError("this machine could not be calibrated", "try again, or --no-calibrate")
    # Workers report CPU time and chunks at different times, but both rates are steady.
    cpu = [busy / span for busy, _, span in spent]
    return Calibration(
        # By the busiest worker: it is the first to reach its limit.
        chunks_per_s=rate / max(cpu),
        workers=count,
        us_per_chunk=sum(cpu) * 1e6 / rate,
        waited=max(delay / span for _, delay, span in spent),
        at=wall(),
        load=load_before,
    )


def machine_load() -> float:
    """Runnable processes for each core that is ours, over the last minute."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))
