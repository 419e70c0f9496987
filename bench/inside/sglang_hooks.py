"""Measures the cost of the plugin's hooks and of a request table on SGLang's scheduler thread.

    python -m bench.inside.sglang_hooks [--rows 1 32 256 1024] [--waiting 100000]

No engine runs. A step is SGLang's three calls with empty bodies, with and without the hooks in
turn. The difference is the cost of the hooks. All times are CPU times of the thread, because other
processes share the cores.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from types import SimpleNamespace
from typing import Any

from llmtop.engines.sglang.adapter import PLUGIN_FOLDERS

STEPS, TURNS = 400, 9


class Mode:
    """A decode step."""

    def is_extend(self) -> bool:
        return False

    is_mixed = is_idle = is_extend


class Lengths:
    """The lengths of a batch. SGLang's type has a method ``sum``."""

    def sum(self) -> int:
        return 1


def request(number: int) -> Any:
    """A request that decodes or waits."""
    stamps = SimpleNamespace(
        scheduler_recv_time=1.0 + number * 1e-3,
        forward_entry_time=0.0,
        prefill_finished_time=0.0,
    )
    return SimpleNamespace(
        rid=f"request-{number:08d}-0123456789abcdef",
        finished_reason=None,
        is_retracted=False,
        retraction_count=0,
        origin_input_ids=[0] * 100,
        output_ids=[],
        cached_tokens=0,
        priority=None,
        sampling_params=SimpleNamespace(max_new_tokens=100),
        time_stats=stamps,
    )


class Scheduler:
    """SGLang's scheduler with empty methods."""

    def __init__(self, rows: int, waiting: int) -> None:
        self.server_args = SimpleNamespace(tp_size=1, pp_size=1, dp_size=1)
        self.page_size, self.device = 1, "cpu"
        self.batch = SimpleNamespace(
            reqs=[request(n) for n in range(rows)],
            forward_mode=Mode(),
            seq_lens_cpu=Lengths(),
            decoding_reqs=None,
        )
        self.running_batch = self.last_batch = self.batch
        self.waiting_queue = [request(n) for n in range(waiting)]
        self.token_to_kv_pool_allocator = SimpleNamespace(available_size=lambda: 9)
        self.tree_cache = SimpleNamespace(evictable_size=lambda: 1)
        self.result = SimpleNamespace(copy_done=None)

    def get_next_batch_to_run(self) -> Any:
        return self.batch

    def run_batch(self, batch: Any) -> Any:
        return self.result

    def process_batch_result(self, batch: Any, result: Any) -> None:
        pass

    def abort_request(self, request: Any) -> None:
        pass


def steps(scheduler: Any, inside: Any) -> float:
    """The CPU seconds of one step. inside: the hooks, None without them."""
    begun = time.thread_time()
    for _ in range(STEPS):
        if inside is not None:
            inside.round_begins()
        batch = scheduler.get_next_batch_to_run()
        result = scheduler.run_batch(batch)
        scheduler.process_batch_result(batch, result)
    return (time.thread_time() - begun) / STEPS


def main() -> None:
    """Measure and print the hooks, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 256, 1024])
    parser.add_argument("--waiting", type=int, default=100_000)
    given = parser.parse_args()
    sys.path[:0] = [str(folder) for folder in PLUGIN_FOLDERS]
    from llmtop_live.request_table import table  # type: ignore[import-not-found]
    from llmtop_sglang.ranks import Ranks  # type: ignore[import-not-found]
    from llmtop_sglang.scheduler_introspection import SchedulerIntrospection  # type: ignore[import-not-found]

    log = logging.getLogger("bench")
    for rows in given.rows:
        bare, watched = Scheduler(rows, 0), Scheduler(rows, 0)
        inside = SchedulerIntrospection(watched, Ranks(watched), log)
        costs = [steps(watched, inside) - steps(bare, None) for _ in range(TURNS)]
        assert inside.introspection.off is None, inside.introspection.off
        low, high = min(costs) * 1e6, max(costs) * 1e6
        print(
            f"{rows:5} rows: {statistics.median(costs) * 1e6:6.1f} us a step ({low:.1f}-{high:.1f})"
        )
    scheduler = Scheduler(256, given.waiting)
    view = SchedulerIntrospection(scheduler, Ranks(scheduler), log).introspection.view
    ids = [one.rid for one in scheduler.waiting_queue[:5000:100]]
    begun = time.thread_time()
    assert len(table(view, time.time(), 1, ids=ids)["requests"]) == 50
    print(f"{given.waiting} waiting, 50 by id: {(time.thread_time() - begun) * 1e3:.2f} ms")
    for sort in ("age", "wait", "tokens", "kv"):
        took = []
        for _ in range(TURNS):
            begun = time.thread_time()
            table(view, time.time(), 1, sort)
            took.append((time.thread_time() - begun) * 1e3)
        print(f"{given.waiting} waiting, by {sort}: {statistics.median(took):.2f} ms", end="")
        print(f" ({min(took):.2f}-{max(took):.2f})")


if __name__ == "__main__":
    main()
