"""What load this machine can carry, tried out on a server of our own before a target is loaded."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from llmtop import LlmtopError
from llmtop.loadgen.health import with_cause
from llmtop.loadgen.paced_server import serving
from llmtop.loadgen.plan import Plan, Prompts, Target
from llmtop.loadgen.pool import Load, default_workers
from llmtop.loadgen.results import ClientHealth

SECONDS = 1.0  # with the start of the workers 1.7 s in all: every load may wait for that
WARM_UP_S = 0.4
RATE = 50.0  # tokens a second and stream, as a person reads
STREAMS = 128  # 6,400 chunks a second: a third of a core at most, and our server keeps its pace
MOST_OF_CALIBRATED = 0.70  # as MAX_CPU: above, bursts queue up inside the workers
LEAST_CHUNKS = 200  # below this something other than the client was in the way

Serving = Callable[[float, float], AbstractContextManager[tuple[object, str]]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the load's workers can carry here, by the core time that a chunk cost them.

    chunks_per_s: of all workers together, each with a core to itself. us_per_chunk: CPU time.
    waited: share of the time in which the worker that waited most had no core; the verdict on each
    level looks at that for itself. at: unix seconds. load: of the machine when it was tried,
    runnable processes for each core.
    """

    chunks_per_s: float
    workers: int
    us_per_chunk: float
    waited: float
    at: float
    load: float

    @property
    def streams(self) -> int:
        """How many streams of 50 tokens a second that is."""
        return int(self.chunks_per_s / RATE)

    def judge(self, health: ClientHealth, chunks_per_s: float | None) -> ClientHealth:
        """A verdict that also knows how much was tried out: above 70 % of it the client counts as
        the limit."""
        limit = MOST_OF_CALIBRATED * self.chunks_per_s
        if chunks_per_s is None or chunks_per_s <= limit:
            return health
        words = (
            f"{chunks_per_s:,.0f} chunks/s are more than {MOST_OF_CALIBRATED:.0%} of the "
            f"{self.chunks_per_s:,.0f} that this machine was found to carry"
        )
        brief = f"{chunks_per_s / self.chunks_per_s:.0%} of what it carries"
        return with_cause(health, words, brief)


def calibrate(
    workers: int | None = None,
    *,
    seconds: float = SECONDS,
    on_left: Callable[[float], None] = lambda left_s: None,
    server: Serving = serving,
    wall: Callable[[], float] = time.time,
) -> Calibration:
    """Load a paced server inside this process with real workers and read what they took. Blocks.

    Nothing leaves the machine. What is measured is core time for each chunk, at a rate that is far
    from the limit: where chunks wait for each other several come in one read, which is cheaper than
    what the numbers are then wanted for. on_left: told the seconds left, some times a second.
    LlmtopError when nothing can be told from it.
    """
    count = default_workers() if workers is None else max(1, workers)
    load_before = machine_load()
    with server(0.01, 1 / RATE) as (_, url):
        length = int(RATE * (seconds + WARM_UP_S))
        with Load(Target(url, "paced"), Prompts((3, 3), (length, length)), workers=count) as load:
            load.start(Plan(shape=f"hold {STREAMS}"))
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
    # A worker that told nothing meanwhile had no core for it: nothing would seem to cost nothing.
    told = all(busy > 0 and span > 0 for busy, _, span in spent)
    if grown < LEAST_CHUNKS or now.failed or not told:
        raise LlmtopError("this machine could not be calibrated", "try again, or --no-calibrate")
    # Workers tell their CPU time some times a second, not at the moments at which chunks are
    # counted; the rates of both are steady.
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
