"""Introspection of one scheduler: its hooks, what they record, and the guard.

The plugin inspects the scheduler and its engine core to find what it can report; it never uses the
version. ``missing`` gives the reason for everything else. Every hook runs under the guard: if
llmtop's code raises, all hooks are switched off and vLLM's own methods are restored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from llmtop_live.introspection import Introspection
from llmtop_live.step_boundary import StepBoundary
from llmtop_live.step_ring import StepRing

from llmtop_vllm.engine_loop import EngineLoop
from llmtop_vllm.host_gap import HostGap
from llmtop_vllm.patching import patch
from llmtop_vllm.queue_counters import RankCounters
from llmtop_vllm.request_clocks import RequestClocks
from llmtop_vllm.request_rows import RequestRows
from llmtop_vllm.scheduler_control import SchedulerControl
from llmtop_vllm.step_recorder import StepRecorder

ABORT_ELSEWHERE = "the front ends abort requests"
NO_LOOP = "this vLLM's engine loop has a different structure"
NO_BLOCKS = "this vLLM's KV cache manager has a different structure"


class EngineIntrospection:
    """Installs the hooks in one scheduler.

    counters: the queue counters for the front ends, None if there are none. rank: the data-parallel
    rank.
    """

    def __init__(
        self,
        scheduler: Any,
        control: SchedulerControl,
        log: logging.Logger,
        counters: RankCounters | None,
        rank: int,
    ) -> None:
        self._scheduler = scheduler
        self._control = control
        self._queue = counters
        self.inside = Introspection(log, rank)
        self._boundary = StepBoundary()
        self._clocks = RequestClocks()
        self._gap = HostGap()
        ring = StepRing()
        first_rank = counters is not None and rank == 0
        self._recorder = StepRecorder(
            ring,
            self._clocks,
            self._gap,
            control.counts,
            self._free_blocks(),
            counters.refused if counters is not None and first_rank else lambda: 0,
            1 + _number(scheduler, "num_spec_tokens"),
            seen=self.inside.seen,
        )
        self._loop = EngineLoop(
            scheduler,
            self._found,
            self._recorder.idle,
            self._at_boundary,
            self._clocks.received,
            self._guarded,
        )
        self.inside.boundary = self._boundary
        self.inside.steps = ring
        self.inside.latencies = self._clocks.latencies
        self.inside.view = RequestRows(scheduler, self._clocks, self._blocks(), control.counts)
        self.inside.missing["abort"] = ABORT_ELSEWHERE

    def install(self) -> None:
        """Install the hooks. AttributeError if a method is missing; then no hook is left."""
        undo = self.inside.restore
        if self._queue is not None:
            undo.append(self._queue.close)
        try:
            for name in ("schedule", "update_from_output", "add_request", "finish_requests"):
                undo.append(patch(self._scheduler, name, getattr(self, f"_{name}")(name)))
            self._install_loop()
            self._write_queue(planned=True)  # all slots are free before the first step
        except Exception:
            for one in reversed(undo):
                one()
            raise
        if not getattr(self._scheduler, "log_stats", False):
            for name in ("draft_tokens", "accepted_tokens"):
                self.inside.missing[name] = "vLLM was started with --disable-log-stats"

    def _install_loop(self) -> None:
        missing = self.inside.missing
        self.inside.restore.append(self._undo_loop)
        try:
            self._loop.install()
        except (ImportError, AttributeError):
            for name in ("launch_s", "host_gap_s", "idle_s", "arrival_lag"):
                missing[name] = NO_LOOP
            return
        self._boundary.wake = self._loop.wake
        self._control.tunables.wake = self._loop.wake
        if not self._loop.wakes:
            missing["wake"] = "an idle engine of this version answers at its next step"

    def _undo_loop(self) -> None:
        for undo in self._loop.undo:
            undo()

    # What this scheduler can report.

    def _free_blocks(self) -> Callable[[], int] | None:
        pool = getattr(getattr(self._scheduler, "kv_cache_manager", None), "block_pool", None)
        count = getattr(pool, "get_num_free_blocks", None)
        self.inside.seen("kv_free_blocks", callable(count), NO_BLOCKS)
        return count if callable(count) else None

    def _blocks(self) -> Callable[[str], int] | None:
        manager = getattr(self._scheduler, "kv_cache_manager", None)
        coordinator = getattr(manager, "coordinator", None)
        groups = getattr(coordinator, "single_type_managers", None)
        tables = [getattr(group, "req_to_blocks", None) for group in groups or ()]
        known = bool(tables) and all(table is not None for table in tables)
        self.inside.seen("kv_blocks", known, NO_BLOCKS)
        if not known:
            return None
        return lambda ident: sum(len(table.get(ident, ())) for table in tables)  # type: ignore[union-attr]

    def _found(self, core: Any) -> None:
        """The engine loop has found the engine core of this scheduler."""
        if hasattr(core, "batch_queue"):
            self._gap.core = core
        else:
            self.inside.missing["host_gap_s"] = NO_LOOP
        if not hasattr(core, "preprocess_add_request"):
            self.inside.missing["arrival_lag"] = NO_LOOP
        executor = getattr(core, "model_executor", None)
        original = getattr(executor, "execute_model", None)
        if original is None:
            self.inside.missing.update(dict.fromkeys(("launch_s", "host_gap_s"), NO_LOOP))
            return

        def execute_model(*args: Any, **kwargs: Any) -> Any:
            self._guarded(self._recorder.launches, "execute_model()")
            result = original(*args, **kwargs)
            self._guarded(self._recorder.launched, "execute_model()")
            return result

        self.inside.restore.append(patch(executor, "execute_model", execute_model))
        sample = getattr(executor, "sample_tokens", None)
        if sample is None:
            return

        def sample_tokens(*args: Any, **kwargs: Any) -> Any:
            result = sample(*args, **kwargs)
            self._guarded(self._recorder.sampled, "sample_tokens()")
            return result

        self.inside.restore.append(patch(executor, "sample_tokens", sample_tokens))

    # The guard.

    def _guarded(self, work: Callable[[], None], where: str) -> None:
        if self.inside.off is not None:
            return
        try:
            work()
        except Exception as error:
            self.inside.switch_off(error, where)

    def _at_boundary(self) -> None:
        if self._control.tunables.attention:
            self._control.step()
        if self._boundary.attention:
            self._boundary.run()

    # The hooks. Each first reads its original, so that a missing method raises at installation.

    def _schedule(self, name: str) -> Callable[..., Any]:
        original = getattr(self._scheduler, name)

        def schedule(*args: Any, **kwargs: Any) -> Any:
            if self.inside.off is not None:
                return original(*args, **kwargs)
            self._guarded(self._before_schedule, "schedule()")
            plan = original(*args, **kwargs)
            self._guarded(lambda: self._after_schedule(plan), "schedule()")
            return plan

        return schedule

    def _before_schedule(self) -> None:
        if self._boundary.attention:
            self._boundary.run()
        self._recorder.plans()

    def _after_schedule(self, plan: Any) -> None:
        self._recorder.planned(plan)
        self._write_queue(planned=True)

    def _update_from_output(self, name: str) -> Callable[..., Any]:
        original = getattr(self._scheduler, name)

        def update_from_output(plan: Any, output: Any, *args: Any, **kwargs: Any) -> Any:
            if self.inside.off is not None:
                return original(plan, output, *args, **kwargs)
            ended = [0.0]

            def begin() -> None:
                ended[0] = self._recorder.updates()

            def end() -> None:
                self._recorder.updated(plan, result, ended[0])
                self._write_queue(planned=False)

            self._guarded(begin, "update_from_output()")
            result = original(plan, output, *args, **kwargs)
            self._guarded(end, "update_from_output()")
            return result

        return update_from_output

    def _add_request(self, name: str) -> Callable[..., Any]:
        original = getattr(self._scheduler, name)

        def add_request(request: Any, *args: Any, **kwargs: Any) -> Any:
            def record() -> None:
                if self._queue is not None:
                    self._queue.received()
                self._clocks.added(request)

            self._guarded(record, "add_request()")
            return original(request, *args, **kwargs)

        return add_request

    def _finish_requests(self, name: str) -> Callable[..., Any]:
        original = getattr(self._scheduler, name)

        def finish_requests(request_ids: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(request_ids, str):
                ids = [request_ids]
            elif request_ids is None:
                ids = list(self._clocks.open)
            else:
                ids = request_ids = list(request_ids)
            result = original(request_ids, *args, **kwargs)

            def record() -> None:
                for ident in ids:
                    self._clocks.removed(ident)

            self._guarded(record, "finish_requests()")
            return result

        return finish_requests

    def _write_queue(self, *, planned: bool) -> None:
        if self._queue is not None:
            running, waiting = self._control.counts()
            self._queue.write(waiting, running, self._control.slots, planned)


def _number(holder: Any, name: str) -> int:
    value = getattr(holder, name, 0)
    return value if isinstance(value, int) else 0
