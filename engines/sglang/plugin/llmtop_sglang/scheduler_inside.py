"""What one scheduler shows of its inside, and the hooks that observe it.

The hooks are attributes of the scheduler object itself, so that they can be taken off again. Each
calls SGLang's own method whatever happens in ours: a failure there switches all of it off.
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
from llmtop_sglang.launched_step import Taking
from llmtop_sglang.queue_board import QueueBoard
from llmtop_sglang.ranks import Ranks
from llmtop_sglang.request_times import RequestTimes, carry_arrival
from llmtop_sglang.request_view import SchedulerRequests
from llmtop_sglang.step_recorder import StepRecorder

LOOP = ("get_next_batch_to_run", "run_batch", "process_batch_result")
PLAIN = ("null", "none", "")  # of disaggregation modes: the one that computes everything itself


class SchedulerInside:
    """The introspection of one scheduler. Everything runs on its thread, but for the socket's."""

    def __init__(
        self,
        scheduler: Any,
        ranks: Ranks,
        log: logging.Logger,
        board: QueueBoard | None = None,
        refused: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.introspection = told = Introspection(log, ranks.data)
        self._scheduler = scheduler
        self._board = board
        self._refused = refused
        self._clock = clock
        self._recorder: StepRecorder | None = None
        self._times: RequestTimes | None = None
        self._abort: ExactAbort | None = None
        self._received = clock()
        self.wake = IdleWake(scheduler)
        told.boundary = StepBoundary(self.wake.wake)
        told.restore.append(self.wake.undo)
        if not ranks.lead:  # it does as the lead rank does, which is looked at
            self._requests(ranks)
            return
        obstacle = _obstacle(scheduler, ranks)
        if obstacle is not None:
            told.missing.update(dict.fromkeys(("steps", "latencies"), obstacle))
        else:
            self._observe(ranks)
        self._requests(ranks)

    # What is found.

    def _observe(self, ranks: Ranks) -> None:
        scheduler, told = self._scheduler, self.introspection
        told.steps = StepRing()
        self._recorder = StepRecorder(
            scheduler, told.steps, self._refused, self._clock, seen=told.seen
        )
        undo = carry_arrival()
        if undo is not None:
            told.restore.append(undo)
        self._times = RequestTimes(self._clock, told.seen)
        told.latencies = self._times.histograms
        wrapped = (self._choosing, self._launching, self._taking_up)
        for name, around in zip(LOOP, wrapped, strict=True):
            self._wrap(name, around)

    def _requests(self, ranks: Ranks) -> None:
        scheduler, told = self._scheduler, self.introspection
        needed = ("running_batch", "last_batch", "waiting_queue")
        lacking = [name for name in needed if not hasattr(scheduler, name)]
        if lacking or ranks.stages > 1:
            reason = f"this scheduler has no {lacking[0]}" if lacking else "pipeline parallel"
            told.missing.update(dict.fromkeys(("requests", "abort"), reason))
            return
        told.view = SchedulerRequests(scheduler, getattr(scheduler, "page_size", 1) or 1, told.seen)
        everywhere = ranks.together > 1
        if not callable(getattr(scheduler, "abort_request", None)):
            told.missing["abort"] = "this scheduler has no abort_request"
        elif everywhere and not callable(getattr(scheduler, "_poll_timeout_aborts", None)):
            told.missing["abort"] = "this SGLang does not bring an abort to all ranks at once"
        else:
            self._abort = ExactAbort(scheduler, everywhere)
            told.abort = self._abort.abort

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
        """Before each round takes in what came. Orders from the socket are done here."""
        told = self.introspection
        if told.off is not None:
            return
        try:
            self._received = self._clock()
            if self._recorder is not None:
                self._recorder.round_begins()
            if self.wake.pending:
                self.wake.woken()
            if told.boundary is not None and told.boundary.attention:
                told.boundary.run()
        except Exception as error:
            self.fail(error, "the scheduler's loop")

    def released(self, request: Any) -> None:
        """Before a request's KV cache is given back."""
        if self._times is not None and self.introspection.off is None:
            try:
                self._times.released(request)
            except Exception as error:
                self.fail(error, "release_kv_cache")

    def retracted(self, answer: Any) -> None:
        """After ``retract_decode``: the requests that were put back stand first in its answer."""
        if self._recorder is not None and self.introspection.off is None:
            try:
                self._recorder.retracted(len(answer[0]))
            except Exception as error:
                self.fail(error, "retract_decode")

    def carried(self, request: Any) -> bool:
        """Whether an abort that came to all ranks was one of ours, which is then done.

        Also when all else was switched off: the other ranks do it too.
        """
        if self._abort is None:
            return False
        try:
            return self._abort.carried(request)
        except Exception as error:
            self.fail(error, "abort_request")
            return True

    def extra_aborts(self) -> list[Any]:
        """What this rank brings to all ranks in this round."""
        return [] if self._abort is None or self.introspection.off else self._abort.extra()

    def fail(self, error: Exception, where: str) -> None:
        """The guard: off for good, everything as SGLang made it."""
        self.introspection.switch_off(error, where)
        if self._board is not None:
            self._board.close()

    def _choosing(self, original: Callable[..., Any], *args: Any, **named: Any) -> Any:
        recorder = self._recorder
        begun = self._clock()
        try:
            assert recorder is not None
            recorder.look()
        except Exception as error:
            self.fail(error, LOOP[0])
        found = original(*args, **named)
        try:
            if self.introspection.off is None:
                batch = getattr(found, "batch_to_run", found)
                recorder.scheduled(self._clock() - begun, not batch)  # type: ignore[union-attr]
                if self._board is not None:
                    self._publish(batch, getattr(found, "running_batch", None))
        except Exception as error:
            self.fail(error, LOOP[0])
        return found

    def _launching(self, original: Callable[..., Any], batch: Any, *rest: Any, **named: Any) -> Any:
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

    def _taking_up(
        self, original: Callable[..., Any], batch: Any, result: Any, *rest: Any, **named: Any
    ) -> Any:
        recorder = self._recorder
        taking: Taking | None = None
        try:
            assert recorder is not None
            taking = recorder.taking_up(batch, result)
        except Exception as error:
            self.fail(error, LOOP[2])
        answer = original(batch, result, *rest, **named)
        try:
            if taking is not None and self.introspection.off is None:
                assert recorder is not None and self._times is not None
                self._times.taken_up(batch, taking.begun, taking.live)
                recorder.taken_up(batch, result, taking)
        except Exception as error:
            self.fail(error, LOOP[2])
        return answer

    def _publish(self, batch: Any, running: Any) -> None:
        """For the HTTP process: the queue as it is, now that a batch was chosen from it, or none.

        running: the batch that decodes, in versions that say so with the choice.
        """
        scheduler, board = self._scheduler, self._board
        assert board is not None
        running = running if running is not None else scheduler.running_batch
        count = len(running.reqs) if running is not None else 0
        if batch and batch is not running:
            count += len(batch.reqs)
        board.publish(len(scheduler.waiting_queue), count, self._received)


def _obstacle(scheduler: Any, ranks: Ranks) -> str | None:
    """Why the loop cannot be observed, or None."""
    mode = getattr(scheduler, "disaggregation_mode", None)
    name = str(getattr(mode, "value", mode or "")).lower()
    if name not in PLAIN:
        return f"prefill and decode are apart ({name}): this loop is another one"
    if ranks.stages > 1:
        return "pipeline parallel: batches of several stages are under way at once"
    if getattr(scheduler, "dllm_config", None) is not None:
        return "a diffusion model: its batches are others"
    for method in LOOP:
        if not callable(getattr(scheduler, method, None)):
            return f"this scheduler has no {method}"
    return None
