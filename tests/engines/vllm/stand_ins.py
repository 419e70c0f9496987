"""Stand-ins with the attributes of vLLM's schedulers, and what a test asks of the plugin."""

from __future__ import annotations

import json
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any


class Request:
    """What a scheduler keeps of a request, as far as the plugin touches it."""

    def __init__(self, number: int, drafts: list[int] | None = None) -> None:
        self.number = number
        self.status = "RUNNING"
        self.spec_token_ids = drafts if drafts is not None else []
        self.priority = 0
        self.arrival_time = float(number)


class Scheduler020:
    """vLLM 0.20: one limit, which is the gate and is asserted at the end of a step."""

    gate = "max_num_running_reqs"

    def __init__(self, seqs: int = 8, budget: int = 256, drafts: int = 0, **config: Any) -> None:
        speculative = SimpleNamespace(method="ngram") if drafts else None
        self.vllm_config = SimpleNamespace(
            speculative_config=speculative,
            parallel_config=SimpleNamespace(
                data_parallel_index=config.get("index", 0),
                data_parallel_size=config.get("ranks", 1),
            ),
        )
        self.scheduler_config = SimpleNamespace(
            max_num_batched_tokens=budget,
            enable_chunked_prefill=config.get("chunked", True),
            disable_chunked_mm_input=config.get("whole_images", False),
        )
        self.max_model_len = 128
        self.num_spec_tokens = drafts
        self.max_num_running_reqs = seqs
        self.max_num_scheduled_tokens = budget
        self.running: list[Any] = []
        self.waiting: list[Any] = []
        self.policy = SimpleNamespace(value="fcfs")
        self.connector = None
        self.use_v2_model_runner = False
        self.proposed = [-1] * drafts  # one list for all requests, as the asynchronous one has

    def schedule(self) -> dict[int, int]:
        """Admit, count drafts, assert what vLLM asserts; drafts scheduled by request number."""
        while self.waiting and len(self.running) < getattr(self, self.gate):
            request = self.waiting.pop(0)
            request.status = "RUNNING"
            self.running.append(request)
        assert len(self.running) <= self.max_num_running_reqs
        scheduled = {}
        for request in self.running:
            scheduled[request.number] = len(request.spec_token_ids)
            request.spec_token_ids = self.proposed
        return scheduled

    def _preempt_request(self, request: Any, timestamp: float) -> None:
        assert request.status == "RUNNING"
        request.status = "PREEMPTED"
        self.waiting.insert(0, request)

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.waiting)


class Scheduler024(Scheduler020):
    """0.24: an argument to schedule(), and the lookup of drafts by batch size."""

    def __init__(self, *args: Any, table: list[int] | None = None, **config: Any) -> None:
        super().__init__(*args, **config)
        self.dynamic_sd_lookup = table

    def schedule(self, throttle_prefills: bool = False) -> dict[int, int]:
        return super().schedule()


class Scheduler028(Scheduler024):
    """0.28: preemption takes one more argument, and is told to the workers wherever it happens."""

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.reset_preempted_req_ids: set[int] = set()

    def _preempt_request(
        self, request: Any, timestamp: float, drop_stale_output: bool = False
    ) -> None:
        super()._preempt_request(request, timestamp)
        self.reset_preempted_req_ids.add(request.number)


class Scheduler032(Scheduler028):
    """0.31 and later: a gate of its own."""

    gate = "max_num_active_reqs"

    def __init__(self, seqs: int = 8, *args: Any, active: int = 0, **config: Any) -> None:
        super().__init__(seqs, *args, **config)
        self.max_num_active_reqs = active or seqs


def launched(plugin: ModuleType, scheduler: type, *args: Any, **config: Any) -> Any:
    """A scheduler made as vLLM's engine core makes it, after plugins were loaded."""
    plugin.register()
    chosen = sys.modules["vllm.config.scheduler"].SchedulerConfig()
    chosen.scheduler_cls = scheduler
    return chosen.get_scheduler_cls()(*args, **config)


def ask(plugin: ModuleType, scheduler: Any, line: bytes) -> dict[str, Any]:
    server = sys.modules["llmtop_live.socket_server"]
    told: dict[str, Any] = server.answer(
        scheduler._llmtop.tunables, line, logging.getLogger("quiet")
    )
    return told


def get(plugin: ModuleType, scheduler: Any) -> dict[str, Any]:
    return ask(plugin, scheduler, b'{"op": "get"}')


def put(plugin: ModuleType, scheduler: Any, evict: bool = False, **changes: Any) -> dict[str, Any]:
    """Hand changes in while the engine is between two steps; they wait."""
    request = {"op": "set", "changes": changes, "evict": evict, "by": "ann", "wait_s": 0}
    told = ask(plugin, scheduler, json.dumps(request).encode())
    assert told["ok"], told
    return told
