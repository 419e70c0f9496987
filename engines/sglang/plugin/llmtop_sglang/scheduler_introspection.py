"""Introspection of one scheduler: its hooks, and the guard.

The hooks are attributes of the scheduler object, so that they can be removed again. Each hook
always calls SGLang's own method. If llmtop's code raises, all hooks are switched off.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from llmtop_live.introspection import Introspection
from llmtop_live.step_boundary import StepBoundary
from llmtop_live.step_ring import StepRing

from llmtop_sglang.exact_abort import ExactAbort
from llmtop_sglang.idle_wake import IdleWake
from llmtop_sglang.launched_step import ResultProcessing
from llmtop_sglang.ranks import Ranks
from llmtop_sglang.request_times import RequestTimes, propagate_arrival
from llmtop_sglang.request_view import SchedulerRequests
from llmtop_sglang.shared_queue import QueueWriter
from llmtop_sglang.step_recorder import StepRecorder

LOOP = ("get_next_batch_to_run", "run_batch", "process_batch_result")
NOT_DISAGGREGATED = ("null", "none", "")  # disaggregation modes with prefill and decode in one


class SchedulerIntrospection:
    """The introspection of one scheduler. Runs on its thread.

    writer: publishes the queue for the HTTP process. refused: the requests that the HTTP process
    has refused, None if unknown. clock: perf_counter seconds.
    """

    def __init__(
        self,
        scheduler: Any,
        ranks: Ranks,
        log: logging.Logger,
        writer: QueueWriter | None = None,
        refused: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.introspection = shown = Introspection(log, ranks.data)
        self._scheduler = scheduler
        self._writer = writer
        self._refused = refused
        self._clock = clock
        self._recorder: StepRecorder | None = None
        self._times: RequestTimes | None = None
        self._abort: ExactAbort | None = None
        self._received = clock()
        self.wake = IdleWake(scheduler)
        shown.boundary = StepBoundary(self.wake.wake)
        shown.restore.append(self.wake.undo)
        if not ranks.lead:  # its steps are those of the lead rank, which reports them
            self._requests(ranks)
            return
        obstacle = _obstacle(scheduler, ranks)
        if obstacle is not None:
            shown.missing.update(dict.fromkeys(("steps", "latencies"), obstacle))
        else:
            self._observe(ranks)
        self._requests(ranks)

    # What this scheduler can report.

    def _observe(self, ranks: Ranks) -> None:
        scheduler, shown = self._scheduler, self.introspection
        shown.steps = StepRing()
        self._recorder = StepRecorder(
            scheduler, shown.steps, self._refused, self._clock, seen=shown.seen
        )
        undo = propagate_arrival()
        if undo is not None:
            shown.restore.append(undo)
        self._times = RequestTimes(self._clock, shown.seen)
        shown.latencies = self._times.histograms
        wrapped = (self._around_get_next_batch, self._around_run_batch, self._around_process_result)
        for name, around in zip(LOOP, wrapped, strict=True):
            self._wrap(name, around)

    def _requests(self, ranks: Ranks) -> None:
        scheduler, shown = self._scheduler, self.introspection
        needed = ("running_batch", "last_batch", "waiting_queue")
        lacking = [name for name in needed if not hasattr(scheduler, name)]
        if lacking or ranks.stages > 1:
            reason = f"this scheduler has no {lacking[0]}" if lacking else "pipeline parallel"
            shown.missing.update(dict.fromkeys(("requests", "abort"), reason))
            return
        page = getattr(scheduler, "page_size", 1) or 1
        shown.view = SchedulerRequests(scheduler, page, shown.seen)
        broadcasts = ranks.lockstep_ranks > 1
        if not callable(getattr(scheduler, "abort_request", None)):
            shown.missing["abort"] = "this scheduler has no abort_request"
        elif broadcasts and not callable(getattr(scheduler, "_poll_timeout_aborts", None)):
            shown.missing["abort"] = "this SGLang cannot send an abort to all ranks in one round"
        else:
            self._abort = ExactAbort(scheduler, broadcasts)
            shown.abort = self._abort.abort

    def _wrap(self, name: str, around: Callable[..., Any]) -> None:
        original = getattr(self._scheduler, name)

        def hooked(*args: Any, **named: Any) -> Any:
            return around(original, *args, **named)

        setattr(self._scheduler, name, hooked)

        def undo() -> None:
            if self._scheduler.__dict__.get(name) is hooked:
                delattr(self._scheduler, name)

        self.introspection.restore.append(undo)

    # The hooks.

    def round_begins(self) -> None:
        """A round begins, before it receives messages. Runs the work of socket threads."""
        shown = self.introspection
        if shown.off is not None:
            return
        try:
            self._received = self._clock()
            if self._recorder is not None:
                self._recorder.round_begins()
            if self.wake.pending:
                self.wake.woken()
            if shown.boundary is not None and shown.boundary.attention:
                shown.boundary.run()
        except Exception as error:
            self.fail(error, "the scheduler's loop")

    def released(self, request: Any) -> None:
        """A request is about to release its KV cache."""
        if self._times is not None and self.introspection.off is None:
            try:
                self._times.released(request)
            except Exception as error:
                self.fail(error, "release_kv_cache")

    def retracted(self, answer: Any) -> None:
        """``retract_decode`` returned ``answer``, whose first item is the retracted requests."""
        if self._recorder is not None and self.introspection.off is None:
            try:
                self._recorder.retracted(len(answer[0]))
            except Exception as error:
                self.fail(error, "retract_decode")

    def handle_broadcast(self, request: Any) -> bool:
        """Run an abort that came to all ranks. False if it is not one of llmtop.

        This works also when introspection is off, because the other ranks do the same.
        """
        if self._abort is None:
            return False
        try:
            return self._abort.handle_broadcast(request)
        except Exception as error:
            self.fail(error, "abort_request")
            return True

    def extra_aborts(self) -> list[Any]:
        """The aborts that this rank must broadcast in this round."""
        return [] if self._abort is None or self.introspection.off else self._abort.take_outgoing()

    def fail(self, error: Exception, where: str) -> None:
        """The guard: switch introspection off permanently and restore SGLang's own methods."""
        self.introspection.switch_off(error, where)
        if self._writer is not None:
            self._writer.close()

    def _around_get_next_batch(self, original: Callable[..., Any], *args: Any, **named: Any) -> Any:
        recorder = self._recorder
        begun = self._clock()
        try:
            assert recorder is not None
            recorder.poll_device()
        except Exception as error:
            self.fail(error, LOOP[0])
        found = original(*args, **named)
        try:
            if self.introspection.off is None:
                batch = getattr(found, "batch_to_run", found)
                recorder.scheduled(self._clock() - begun, not batch)  # type: ignore[union-attr]
                if self._writer is not None:
                    self._publish(batch, getattr(found, "running_batch", None))
        except Exception as error:
            self.fail(error, LOOP[0])
        return found

    def _around_run_batch(
        self, original: Callable[..., Any], batch: Any, *rest: Any, **named: Any
    ) -> Any:
        recorder = self._recorder
        try:
            assert recorder is not None
            recorder.launching(batch)
        except Exception as error:
            self.fail(error, LOOP[1])
        result = original(batch, *rest, **named)
        try:
            if self.introspection.off is None:
                recorder.launched(batch, result)  # type: ignore[union-attr]
        except Exception as error:
            self.fail(error, LOOP[1])
        return result

    def _around_process_result(
        self, original: Callable[..., Any], batch: Any, result: Any, *rest: Any, **named: Any
    ) -> Any:
        recorder = self._recorder
        processing: ResultProcessing | None = None
        try:
            assert recorder is not None
            processing = recorder.processing(batch, result)
        except Exception as error:
            self.fail(error, LOOP[2])
        answer = original(batch, result, *rest, **named)
        try:
            if processing is not None and self.introspection.off is None:
                assert recorder is not None and self._times is not None
                self._times.processed(batch, processing.begun, processing.live)
                recorder.processed(batch, result, processing)
        except Exception as error:
            self.fail(error, LOOP[2])
        return answer

    def _publish(self, batch: Any, running: Any) -> None:
        """Publish the queue for the HTTP process, after a batch or none was chosen.

        running: the decode batch, in versions that return it with the chosen batch; else None.
        """
        scheduler, writer = self._scheduler, self._writer
        assert writer is not None
        running = running if running is not None else scheduler.running_batch
        count = len(running.reqs) if running is not None else 0
        if batch and batch is not running:
            count += len(batch.reqs)
        writer.publish(len(scheduler.waiting_queue), count, self._received)


def _obstacle(scheduler: Any, ranks: Ranks) -> str | None:
    """Why the loop cannot be observed, or None."""
    mode = getattr(scheduler, "disaggregation_mode", None)
    name = str(getattr(mode, "value", mode or "")).lower()
    if name not in NOT_DISAGGREGATED:
        return f"disaggregated prefill and decode ({name}) use a different loop"
    if ranks.stages > 1:
        return "pipeline parallel: batches of several stages run at the same time"
    if getattr(scheduler, "dllm_config", None) is not None:
        return "a diffusion model has a different kind of batches"
    for method in LOOP:
        if not callable(getattr(scheduler, method, None)):
            return f"this scheduler has no {method}"
    return None
