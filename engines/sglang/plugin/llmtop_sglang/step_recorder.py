"""The steps of one SGLang scheduler: their content and duration.

A step lasts from its launch to the next launch. SGLang's overlap loop processes the result of a
step only after the launch of the next one, so the time from launch to result would be two steps. In
all of SGLang's loops, results are processed in the order of the launches.

Everything here runs on the scheduler's thread. Times are perf_counter seconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from llmtop_live.step_ring import UNKNOWN, StepRing

from llmtop_sglang.launched_step import LaunchedStep, ResultProcessing, TimedEvent

CPU = "cpu"
NO_LENGTHS = "this scheduler does not keep the lengths of a batch on the CPU"
NO_CACHED = "this scheduler does not report the prefix cache hits of a batch"
NO_DRAFTS = "this scheduler does not report the number of draft tokens"
NO_ACCEPTED = "this scheduler does not report the number of accepted draft tokens"
NO_GAP = "this scheduler's results do not show when the device finished"
NO_REFUSED = "no HTTP process of this engine counts refused requests"


class StepRecorder:
    """Writes a ring of steps. Its methods are called around the parts of SGLang's loop.

    refused: the requests that the HTTP process has refused, None if unknown. clock: perf_counter
    seconds. now: unix seconds. seen: see ``Introspection.seen``.
    """

    def __init__(
        self,
        scheduler: Any,
        ring: StepRing,
        refused: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], float] = time.time,
        seen: Callable[[str, bool, str], None] = lambda *_: None,
    ) -> None:
        self._seen = seen
        self._scheduler = scheduler
        self._ring = ring
        self._refused = refused
        self._refused_before = refused() or 0
        self._clock = clock
        self._now = now
        self._on_cpu = str(getattr(scheduler, "device", "")) == CPU
        self._page = max(int(getattr(scheduler, "page_size", 1) or 1), 1)
        self._speculates = _speculates(scheduler)
        self._free = self._free_tokens()
        self._steps: deque[LaunchedStep] = deque()
        self._last: LaunchedStep | None = None
        self._round = clock()
        self._scheduled = True  # whether this round chose a batch or none; a paused engine does not
        self._nothing = False  # whether this round has no batch
        self._idle_since: float | None = self._round
        self._scheduling = UNKNOWN
        self._retracted = 0

    def _free_tokens(self) -> Callable[[], float]:
        """Returns a function for the free and evictable KV cache of this scheduler, in pages."""
        pool = getattr(self._scheduler, "token_to_kv_pool_allocator", None)
        tree = getattr(self._scheduler, "tree_cache", None)
        page = self._page
        try:
            int(pool.available_size() + tree.evictable_size())  # type: ignore[union-attr]
        except Exception as error:
            reason = f"this KV pool does not report its free pages ({type(error).__name__})"
            self._seen("kv_free_blocks", False, reason)
            return lambda: UNKNOWN
        assert pool is not None and tree is not None
        return lambda: (pool.available_size() + tree.evictable_size()) // page

    # The parts of the loop, in their order.

    def round_begins(self) -> None:
        """A round of the loop begins."""
        self._round = now = self._clock()
        last = self._last
        if not self._scheduled and last is not None and last.finish is None:
            last.finish = now  # the engine is paused, and the pause is not part of the step
        self._scheduled = self._nothing = False

    def scheduled(self, seconds: float, nothing: bool) -> None:
        """The scheduler has chosen a batch, or nothing. seconds: how long that took."""
        self._scheduling = seconds
        self._scheduled, self._nothing = True, nothing
        if nothing:
            self._finish_last_step()

    def _finish_last_step(self) -> None:
        """Without a launch in this round, the last step ends when its result is processed."""
        if any(step.done is None for step in self._steps):
            return
        if self._last is not None and self._last.finish is None:
            self._last.finish = self._last.done
            self._record()
        if self._idle_since is None:
            self._idle_since = self._clock()

    def retracted(self, requests: int) -> None:
        """This number of running requests was retracted into the queue."""
        self._retracted += requests

    def launching(self, batch: Any) -> None:
        """A batch is about to be launched on the device."""
        now = self._clock()
        last = self._last
        step = LaunchedStep(now)
        if last is not None and last.finish is None:
            last.finish = now
            self._gap(step, last, now)
            self._record()
        if self._idle_since is not None:
            step.idle = max(self._round - self._idle_since, 0.0)
            self._idle_since = None
        step.schedule, self._scheduling = self._scheduling, UNKNOWN
        step.preempted, self._retracted = self._retracted, 0
        self._contents(step, batch)
        self._last = step
        self._steps.append(step)

    def launched(self, batch: Any, result: Any) -> None:
        """The batch was launched."""
        step = self._last
        assert step is not None
        now = self._clock()
        step.launch = now - step.started
        lengths = getattr(batch, "seq_lens_cpu", None)
        step.context = _sum_of(lengths)
        self._seen("context_tokens", lengths is not None, NO_LENGTHS)
        if self._speculates and not step.prefills:
            self._count_drafts(step, result)
        if self._on_cpu:
            step.device_done = now  # a launch on a CPU computes the batch
        elif getattr(result, "delay_sample_func", None) is None:  # else there is no event yet
            query = getattr(getattr(result, "copy_done", None), "query", None)
            step.ready = query if callable(query) else None

    def processing(self, batch: Any, result: Any) -> ResultProcessing:
        """A result is about to be processed."""
        event = getattr(result, "copy_done", None)
        waited = None if event is None else TimedEvent(event, self._clock)
        if waited is not None:
            result.copy_done = waited
        # A row gets no token if its request had ended before the launch (the overlap loop computes
        # one step too many), or if its prompt chunk is not the last one.
        middle = step.middle if (step := self._next_without_result()) is not None else None
        live = sum(
            r.finished_reason is None and not r.is_retracted and r is not middle for r in batch.reqs
        )
        tokens = _visible(batch.reqs) if self._speculates else 0
        return ResultProcessing(live, tokens, waited, self._clock())

    def processed(self, batch: Any, result: Any, processing: ResultProcessing) -> None:
        """The result was processed."""
        step = self._next_without_result()
        if step is None:
            return
        step.done = now = self._clock()
        waited = processing.waited
        step.update = now - processing.begun - (waited.seconds if waited is not None else 0.0)
        if waited is not None and step.device_done is None:
            step.device_done = waited.ended
        if self._speculates:
            step.output = _visible(batch.reqs) - processing.tokens
            reported = hasattr(result, "num_correct_drafts")
            self._seen("accepted_tokens", reported, NO_ACCEPTED)
            step.accepted = int(result.num_correct_drafts or 0) if reported else UNKNOWN
        else:
            step.output = processing.live
        step.free = self._free()
        self._poll_device(now)
        self._record()
        if self._nothing:
            self._finish_last_step()

    def _next_without_result(self) -> LaunchedStep | None:
        """The step of the next result: the first one without a result, as results are in order."""
        return next((one for one in self._steps if one.done is None), None)

    # The content of a step.

    def _contents(self, step: LaunchedStep, batch: Any) -> None:
        scheduler = self._scheduler
        rows = len(batch.reqs)
        mode = batch.forward_mode
        step.requests, step.empty = rows, mode.is_idle() or not rows
        if mode.is_extend():
            mixed = len(batch.decoding_reqs or ()) if mode.is_mixed() else 0
            step.prefills, step.decodes = rows - mixed, mixed
            step.prefill_tokens = max((batch.extend_num_tokens or 0) - mixed, 0)
            # Read now: when the result arrives, this attribute belongs to the next chunk.
            step.middle = getattr(batch, "chunked_req", None)
            stats = getattr(batch, "prefill_stats", None)
            step.cached = getattr(stats, "log_hit_tokens", UNKNOWN)
            self._seen("cached_tokens", step.cached == step.cached, NO_CACHED)
        else:
            step.decodes, step.cached = rows, 0
        running = scheduler.running_batch
        others = 0 if running is batch or running is None else len(running.reqs)
        step.running = rows + others
        step.waiting = len(scheduler.waiting_queue)

    def _count_drafts(self, step: LaunchedStep, result: Any) -> None:
        """A step verifies the draft tokens of each request and one more token."""
        args = self._scheduler.server_args
        numbers = (
            getattr(holder, "speculative_num_draft_tokens", None) for holder in (result, args)
        )
        found = next((n for n in numbers if isinstance(n, int) and not isinstance(n, bool)), None)
        self._seen("draft_tokens", found is not None, NO_DRAFTS)
        if found is None:
            step.drafts = UNKNOWN
            return
        step.drafts = step.requests * max(found - 1, 0)
        step.decodes += step.drafts

    # When the device finished. The plugin polls for it, so the true gap can be longer.

    def poll_device(self) -> None:
        """Check whether the device has finished the last launch."""
        self._poll_device(self._clock())

    def _poll_device(self, now: float) -> None:
        last = self._last
        if (
            last is not None
            and last.device_done is None
            and last.ready is not None
            and last.ready()
        ):
            last.device_done = now

    def _gap(self, step: LaunchedStep, last: LaunchedStep, now: float) -> None:
        self._poll_device(now)
        if last.device_done is not None:
            step.gap = now - last.device_done
        elif last.ready is not None:
            step.gap = 0.0  # the device is still busy
        elif last.done is not None:
            step.gap = now - last.done  # the loop without overlap: a lower bound, since the result
        self._seen("host_gap_s", step.gap == step.gap, NO_GAP)

    # Into the ring.

    def _record(self) -> None:
        """Write the complete steps into the ring, in order."""
        steps = self._steps
        while steps and steps[0].done is not None and steps[0].finish is not None:
            step = steps.popleft()
            if step.empty:
                continue
            finish = max(step.finish or 0.0, step.started)
            refused = self._refused()
            self._seen("refused", refused is not None, NO_REFUSED)
            new = UNKNOWN if refused is None else max(refused - self._refused_before, 0)
            self._refused_before = self._refused_before if refused is None else refused
            self._ring.record(
                self._now() - (self._clock() - finish),
                finish - step.started,
                step.requests,
                step.prefills,
                step.prefill_tokens,
                step.decodes,
                step.output,
                step.drafts,
                step.accepted,
                step.running,
                step.waiting,
                step.free,
                step.preempted,
                step.context,
                step.schedule,
                step.update,
                step.launch,
                step.gap,
                step.idle,
                step.cached,
                new,
            )


def _visible(requests: Sequence[Any]) -> int:
    """Output tokens of the requests, without those after the end of a request."""
    total = 0
    for request in requests:
        ended = getattr(request, "finished_len", None)
        total += len(request.output_ids) if ended is None else ended
    return total


def _speculates(scheduler: Any) -> bool:
    algorithm = getattr(scheduler, "spec_algorithm", None)
    none = getattr(algorithm, "is_none", None)
    return callable(none) and not none()


def _sum_of(lengths: Any) -> float:
    return UNKNOWN if lengths is None else int(lengths.sum())
