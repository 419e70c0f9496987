"""Measures the CPU time of the hooks of one step, and of a request table with a long queue.

    python -m bench.inside.vllm_hooks

No engine runs. The scheduler's plans and outputs are synthetic. Printed is the best of several
rounds.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from llmtop.engines.vllm.adapter import PLUGIN_FOLDERS

sys.path[:0] = [str(folder) for folder in PLUGIN_FOLDERS]

ROUNDS, STEPS = 7, 200
QUEUE = 100_000


class Output(msgspec.Struct, array_like=True, gc=False):
    """An ``EngineCoreOutput``: a Struct in vLLM, too."""

    request_id: str
    new_token_ids: list[int]
    finish_reason: object = None


def best(work: Callable[[], object], times: int) -> float:
    """The CPU seconds of one call in the best round. times: calls in a round."""
    found = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        for _ in range(times):
            work()
        found.append((time.thread_time() - begun) / times)
    return min(found)


def request(name: str, status: str = "RUNNING") -> Any:
    """A request with the attributes of one in vLLM's scheduler."""
    return SimpleNamespace(
        **{"request_id": name, "arrival_time": time.time(), "num_output_tokens": 5, "priority": 0},
        **{"num_prompt_tokens": 500, "num_tokens": 505, "num_computed_tokens": 504},
        **{"status": SimpleNamespace(name=status), "max_tokens": 128, "num_preemptions": 0},
    )


def step_of(count: int) -> Callable[[], None]:
    """A function that calls all hooks of a step with ``count`` decoding requests."""
    from llmtop_live.step_ring import StepRing  # type: ignore[import-not-found]
    from llmtop_vllm.host_gap import HostGap  # type: ignore[import-not-found]
    from llmtop_vllm.request_clocks import RequestClocks  # type: ignore[import-not-found]
    from llmtop_vllm.step_recorder import StepRecorder  # type: ignore[import-not-found]

    clocks, gap = RequestClocks(), HostGap()
    gap.core = SimpleNamespace(batch_queue=None)
    recorder = StepRecorder(
        StepRing(), clocks, gap, lambda: (count, 0), lambda: 1, lambda: 0, most_decode=1
    )
    names = [f"cmpl-0123456789abcdef-{number}-1a2b3c4d" for number in range(count)]
    for name in names:
        clocks.added(request(name))
    plan = SimpleNamespace(
        num_scheduled_tokens=dict.fromkeys(names, 1),
        total_num_scheduled_tokens=count,
        scheduled_new_reqs=[],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=names,
            num_computed_tokens=[504] * count,
            num_output_tokens=[5] * count,
            resumed_req_ids=set(),
        ),
        preempted_req_ids=set(),
    )
    outputs = [Output(name, [7]) for name in names]
    stats = SimpleNamespace(spec_decoding_stats=None)
    result = {0: SimpleNamespace(outputs=outputs, scheduler_stats=stats)}

    def step() -> None:
        recorder.plans()
        recorder.planned(plan)
        recorder.launches()
        recorder.launched()
        recorder.updated(plan, result, recorder.updates())

    return step


def table_of(sort: str) -> Callable[[], object]:
    """A function that makes a table of 50 rows, with 512 running requests and ``QUEUE`` waiting."""
    from llmtop_live.request_table import table  # type: ignore[import-not-found]
    from llmtop_vllm.request_clocks import RequestClocks
    from llmtop_vllm.request_rows import RequestRows  # type: ignore[import-not-found]

    clocks = RequestClocks()
    running = [request(f"r{number}") for number in range(512)]
    waiting = deque(request(f"w{number}", "WAITING") for number in range(QUEUE))
    for one in running:
        clocks.added(one)
    scheduler = SimpleNamespace(running=running, waiting=waiting, requests={})
    view = RequestRows(scheduler, clocks, lambda ident: 32, lambda: (512, QUEUE))
    return lambda: table(view, time.time(), 1, sort, 50)


def main() -> None:
    """Measure and print the hooks, then the tables."""
    for count in (1, 64, 256, 512):
        print(f"hooks of a step of {count:3} requests: {best(step_of(count), STEPS) * 1e6:7.1f} us")
    for sort in ("age", "wait", "kv", "tokens"):
        print(f"table of {QUEUE:,} waiting by {sort:6}: {best(table_of(sort), 5) * 1e3:6.2f} ms")


if __name__ == "__main__":
    main()
