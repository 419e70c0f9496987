"""What looking inside an engine costs: a recorded step, a reader, a table, the simulated engine.

    python -m bench.introspection.cost [out.json]

All times are CPU time of one thread; the best of several rounds, since a busy machine only adds.
on/off: the simulated engine's own work in virtual time (schedule, complete, what is recorded), in
one process, pairs in the order on off off on; the ratio is that of a whole round. Beside it: what
is added, as a share of the step of the virtual H200 (contexts of 600 tokens).
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from llmtop.engines.introspection.step_rows import step_rows
from llmtop.engines.simulated.simulator.inside.step_recorder import StepRecorder
from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.hardware import GPUS, MODELS
from llmtop.engines.simulated.simulator.model.request import Request
from llmtop.engines.simulated.simulator.model.roofline import Roofline, StepLoad
from llmtop.engines.simulated.simulator.model.scheduler import Limits, Scheduler
from llmtop.engines.simulated.simulator.model.tokens import GeneratedText
from llmtop.engines.tuning.inside.llmtop_live.latency_histogram import LatencyHistogram
from llmtop.engines.tuning.inside.llmtop_live.request_table import RequestView, table
from llmtop.engines.tuning.inside.llmtop_live.step_ring import COLUMNS, StepRing

PAIRS = 8
STEPS = 400
Seconds = float


def best(work: Callable[[], object], times: int, rounds: int = 9) -> Seconds:
    """CPU seconds of one call, the best round."""
    found = math.inf
    for _ in range(rounds):
        begun = time.thread_time()
        for _ in range(times):
            work()
        found = min(found, (time.thread_time() - begun) / times)
    return found


class Plain(RequestView):
    """Requests that know their place, as cheap as an engine's own can be."""

    def __init__(self, running: int, waiting: int) -> None:
        self._running = [(float(i), i) for i in range(running)]
        self._waiting = [(float(running + i), i) for i in range(waiting)]

    def running(self) -> list[tuple[float, int]]:
        return self._running

    def waiting(self) -> Iterator[tuple[float, int]]:
        return iter(self._waiting)

    def waiting_count(self) -> int:
        return len(self._waiting)

    def arrived(self, request: tuple[float, int]) -> float:
        return request[0]

    def tokens(self, request: tuple[float, int]) -> int:
        return request[1] * 7919 % 10_007

    def kv_blocks(self, request: tuple[float, int]) -> int:
        return request[1] * 7919 % 997

    def row(self, request: tuple[float, int], now: float) -> dict[str, Any]:
        return dict.fromkeys(("id", "state", "age_s", "prompt_tokens", "kv_blocks"), request[1])


def primitives() -> dict[str, float]:
    """Microseconds and milliseconds of each part."""
    ring = StepRing()
    row = tuple(range(len(COLUMNS) - 1))
    record = best(lambda: ring.record(*row), 20_000)
    histogram = LatencyHistogram()
    observe = best(lambda: histogram.add(0.0371), 20_000)
    read_200 = best(lambda: ring.read(ring.last - 200), 200)
    read_all = best(lambda: ring.read(None), 20)
    answer = ring.read(None)
    decode = best(lambda: step_rows(answer, None, 0), 5)
    views = {sort: Plain(1024, 100_000) for sort in ("age", "kv", "tokens", "wait")}
    tables = {
        f"table_100k_waiting_{sort}_ms": 1e3 * best(lambda: table(view, 0.0, 1, sort), 20)  # noqa: B023
        for sort, view in views.items()
    }
    return {
        "record_us": 1e6 * record,
        "observe_us": 1e6 * observe,
        "read_200_steps_us": 1e6 * read_200,
        "read_4096_steps_us": 1e6 * read_all,
        "client_4096_steps_ms": 1e3 * decode,
        **tables,
    }


def engine(streams: int, watched: bool) -> Seconds:
    """CPU seconds of ``STEPS`` decode steps of so many streams."""
    limits = Limits(streams, 8192)
    scheduler = Scheduler(limits, BlockPool(80_000, 16, caching=False), random.Random(0))
    recorder = StepRecorder(scheduler, StepRing())
    for serial in range(streams):
        scheduler.add(Request(serial, [serial] * 16, STEPS * 4, GeneratedText(serial)))
    for _ in range(8):  # prefills
        plan = scheduler.schedule()
        assert plan is not None
        scheduler.complete(plan)
    begun = time.thread_time()
    for _ in range(STEPS):
        plan = scheduler.schedule()
        assert plan is not None
        if watched:
            recorder.planned(plan)
        emissions = scheduler.complete(plan)
        if watched:
            recorder.completed(plan, emissions, 0.0, 0.0, 0.0, 0.0)
    return time.thread_time() - begun


def ratio(streams: int) -> dict[str, float]:
    """On / off of the simulated engine's own work, with the 95 % interval of the mean."""
    engine(streams, watched=True)
    ratios = []
    for _ in range(PAIRS):
        on, off, off_2, on_2 = (engine(streams, watched) for watched in (True, False, False, True))
        ratios.append((on + on_2) / (off + off_2))
    logs = [math.log(one) for one in ratios]
    middle = statistics.fmean(logs)
    half = 2.365 * statistics.stdev(logs) / math.sqrt(len(logs))  # Student, 7 degrees of freedom
    per_step = engine(streams, watched=False) / STEPS
    roofline = Roofline.of(GPUS["h200"], MODELS["llama-3.1-8b"])
    virtual = roofline.seconds(StepLoad(streams, streams * 600, streams * 600, streams))
    return {
        "streams": streams,
        "pairs": PAIRS,
        "ratio": math.exp(middle),
        "low": math.exp(middle - half),
        "high": math.exp(middle + half),
        "host_us_a_step": 1e6 * per_step,
        "virtual_us_a_step": 1e6 * virtual,
        "cost_share_of_step": (math.exp(middle) - 1) * per_step / virtual,
    }


def main(arguments: list[str]) -> None:
    """Measure, print, and write JSON where a file is named."""
    found = {
        "parts": primitives(),
        "simulated_engine": [ratio(streams) for streams in (1, 64, 512)],
    }
    text = json.dumps(found, indent=2)
    print(text)
    for path in islice(arguments, 1):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
