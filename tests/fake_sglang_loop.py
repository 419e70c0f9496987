"""SGLang's scheduler under load, as far as llmtop's plugin sees it: requests, batches, both loops.

Time is a number that the test moves. Each request computes its whole prompt in one step and then a
token in each further one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.fake_sglang import Scheduler

SCHEDULE_S, LAUNCH_S, UPDATE_S, DEVICE_S = 0.001, 0.002, 0.003, 0.020


class Finish:
    """How a request ended."""

    def __init__(self, kind: str = "length", message: str = "") -> None:
        self.kind = kind
        self.message = message

    def to_json(self) -> dict[str, Any]:
        return {"type": self.kind}


class Stamps(SimpleNamespace):
    """A request's time stamps, 0.0 as long as they are not set."""

    def __init__(self, **more: float) -> None:
        names = (
            "scheduler_recv_time",
            "wait_queue_entry_time",
            "forward_entry_time",
            "prefill_finished_time",
            "completion_time",
        )
        super().__init__(**{**dict.fromkeys(names, 0.0), **more})


class Req:
    """A request inside the scheduler."""

    def __init__(self, rid: str, prompt: int = 10, tokens: int = 3, **more: Any) -> None:
        self.rid = rid
        self.origin_input_ids = [0] * prompt
        self.output_ids: list[int] = []
        self.sampling_params = SimpleNamespace(max_new_tokens=tokens)
        self.finished_reason: Finish | None = None
        self.to_finish: Finish | None = None
        self.is_retracted = False
        self.retraction_count = 0
        self.cached_tokens = 4
        self.priority = None
        self.kv = SimpleNamespace(kv_committed_len=prompt)
        self.time_stats = Stamps()
        vars(self).update(more)


class Mode:
    """SGLang's ForwardMode."""

    def __init__(self, extend: bool, mixed: bool = False) -> None:
        self.extend, self.mixed = extend, mixed

    def is_extend(self) -> bool:
        return self.extend

    def is_mixed(self) -> bool:
        return self.mixed

    def is_idle(self) -> bool:
        return False


class Lengths(list[int]):
    """A tensor of lengths."""

    def sum(self) -> int:
        return sum(self)


class Batch:
    """What is computed in one step."""

    def __init__(self, reqs: list[Req], extend: bool = False) -> None:
        self.reqs = reqs
        self.forward_mode = Mode(extend)
        self.decoding_reqs = None
        self.chunked_req: Req | None = None
        self.extend_num_tokens = sum(len(r.origin_input_ids) - 4 for r in reqs) if extend else None
        self.prefill_stats = SimpleNamespace(log_hit_tokens=4 * len(reqs)) if extend else None
        self.seq_lens_cpu: Lengths | None = None

    def copy(self) -> Batch:
        other = Batch(self.reqs[:])
        vars(other).update({**vars(self), "reqs": self.reqs[:]})
        return other


class Event:
    """A device's event: it is over at ``at``."""

    def __init__(self, world: Loop, at: float) -> None:
        self.world, self.at = world, at

    def query(self) -> bool:
        return self.world.time >= self.at

    def synchronize(self) -> None:
        self.world.time = max(self.world.time, self.at)


class Loop(Scheduler):
    """A scheduler that runs: ``overlap`` is SGLang's default loop, else the normal one."""

    def __init__(self, overlap: bool = True, device: str = "cuda", **more: Any) -> None:
        super().__init__(**more)
        self.time = 1000.0
        self.overlap = overlap
        self.device = device
        self.device_free = 0.0
        self.running_batch: Any = Batch([])
        self.last_batch: Any = None
        self.chunked_req = None
        self.waiting_queue: list[Any] = []
        self.results: deque[Any] = deque()
        self.sent: list[Any] = []
        self.pages = 1000
        self.token_to_kv_pool_allocator = SimpleNamespace(available_size=lambda: self.pages)
        self.tree_cache = SimpleNamespace(evictable_size=lambda: 5, disable=False)
        self.disaggregation_mode = SimpleNamespace(value="null")
        self.spec_algorithm = SimpleNamespace(is_none=lambda: True)
        self.released: Callable[[Any], None] = lambda request: None

    # What the plugin hooks.

    def get_next_batch_to_run(self) -> Batch | None:
        self.time += SCHEDULE_S
        if self.last_batch is not None and self.last_batch.forward_mode.is_extend():
            self.running_batch.reqs += self.last_batch.reqs
        self.running_batch.reqs = [
            r for r in self.running_batch.reqs if r.finished_reason is None and not r.is_retracted
        ]
        room = self.max_running_requests - len(self.running_batch.reqs)
        chosen, self.waiting_queue = self.waiting_queue[:room], self.waiting_queue[room:]
        if chosen:
            for request in chosen:
                request.is_retracted = False
                stamps = request.time_stats
                stamps.forward_entry_time = stamps.forward_entry_time or self.time
            return Batch(chosen, extend=True)
        if not self.running_batch.reqs:
            return None
        batch: Batch = self.running_batch
        return batch

    def run_batch(self, batch: Batch) -> Any:
        batch.seq_lens_cpu = Lengths(
            len(r.origin_input_ids) + len(r.output_ids) for r in batch.reqs
        )
        self.time += LAUNCH_S
        if self.device == "cpu":
            self.time += DEVICE_S
        self.device_free = max(self.device_free, self.time) + DEVICE_S
        done = None if self.device == "cpu" else Event(self, self.device_free)
        return SimpleNamespace(copy_done=done, num_correct_drafts=0)

    def process_batch_result(self, batch: Batch, result: Any) -> None:
        if result.copy_done is not None:
            result.copy_done.synchronize()
        self.time += UPDATE_S
        for request in batch.reqs:
            if request.finished_reason is not None or request.is_retracted:
                continue
            request.output_ids.append(0)
            stamps = request.time_stats
            stamps.prefill_finished_time = stamps.prefill_finished_time or self.time
            full = len(request.output_ids) >= request.sampling_params.max_new_tokens
            if full or request.to_finish is not None:
                request.finished_reason = request.to_finish or Finish()
                self.released(request)
                stamps.completion_time = self.time

    def abort_request(self, request: Any) -> None:
        """By the beginning of the id, as SGLang does."""
        for one in list(self.waiting_queue):
            if one.rid.startswith(request.rid):
                self.waiting_queue.remove(one)
                self.sent.append((one.rid, request.finished_reason))
        for batch in (self.running_batch, self.last_batch):
            for one in batch.reqs if batch is not None else ():
                if one.rid.startswith(request.rid) and one.finished_reason is None:
                    one.to_finish = Finish("abort", "Aborted")

    # A round.

    def arrive(self, *requests: Req) -> None:
        for request in requests:
            stamps = request.time_stats
            stamps.scheduler_recv_time = stamps.wait_queue_entry_time = self.time
            self.waiting_queue.append(request)

    def round(self) -> None:
        self.process_input_requests([])
        batch = self.get_next_batch_to_run()
        if batch:
            result = self.run_batch(batch)
            self.results.append((batch.copy(), result))
        if self.results and (not self.overlap or len(self.results) > 1 or not batch):
            self.process_batch_result(*self.results.popleft())
        self.last_batch = batch

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.round()
