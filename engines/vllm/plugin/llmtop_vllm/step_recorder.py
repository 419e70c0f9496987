"""Writes one row into the step ring for each step of one scheduler.

A step lasts from the result of the previous step to its own result, both as received by the
engine's thread. This definition also fits asynchronous scheduling, where vLLM plans and launches
the next step before the result arrives. Time without work is not part of a step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from llmtop_live.step_ring import UNKNOWN, StepRing

from llmtop_vllm.host_gap import HostGap
from llmtop_vllm.request_clocks import RequestClocks
from llmtop_vllm.step_content import StepContent

NO_PREEMPTED = "this scheduler's plans do not report preempted requests"
MOST_PLANNED = 64  # steps without a result: at most two, or one for each pipeline stage


class StepRecorder:
    """Observes one scheduler. Runs on the engine's thread.

    counts: the present (running, waiting). free_blocks: the number of free KV blocks. refused:
    requests refused at the queue limit since the start. most_decode: maximum number of tokens of a
    decoding request, drafts included. clock: monotonic seconds. wall: unix seconds. seen: see
    ``Introspection.seen``.
    """

    def __init__(
        self,
        ring: StepRing,
        clocks: RequestClocks,
        gap: HostGap,
        counts: Callable[[], tuple[int, int]],
        free_blocks: Callable[[], int] | None,
        refused: Callable[[], int] | None,
        most_decode: int,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        seen: Callable[[str, bool, str], None] = lambda *_: None,
    ) -> None:
        self._seen = seen
        self._ring = ring
        self._clocks = clocks
        self._gap = gap
        self._counts = counts
        self._free_blocks = free_blocks
        self._refused = refused
        self._refused_before = 0
        self._most_decode = most_decode
        self._clock = clock
        self._wall = wall
        self._planned: deque[StepContent] = deque(maxlen=MOST_PLANNED)
        self._begun = 0.0  # when the last schedule() or execute_model() began
        self._ended: float | None = None  # when the previous step ended
        self._idle_s = 0.0  # time without work since then

    # The hooks, in the order of a step.

    def idle(self, begun: float) -> None:
        """The engine had no work from ``begun`` until now."""
        now = self._clock()
        self._idle_s += now - begun
        self._gap.idle_s += now - begun

    def plans(self) -> None:
        """``schedule()`` begins."""
        self._begun = now = self._clock()
        self._gap.poll(now)

    def planned(self, plan: Any) -> None:
        """``schedule()`` returned this plan."""
        content = StepContent(plan, self._most_decode)
        self._planned.append(content)
        self._seen("preempted", content.preempted == content.preempted, NO_PREEMPTED)
        self._clocks.admitted(plan.scheduled_new_reqs, self._begun)
        now = self._clock()
        content.schedule_s = now - self._begun
        if self._ended is None:
            self._ended = self._begun  # there is no step before the first one
            self._idle_s = 0.0

    def launches(self) -> None:
        """``execute_model()`` begins."""
        self._begun = now = self._clock()
        self._gap.launch(now)

    def launched(self) -> None:
        """``execute_model()`` returned."""
        now = self._clock()
        self._gap.launched(now)
        if self._planned:
            self._planned[-1].launch_s = now - self._begun

    def sampled(self) -> None:
        """``sample_tokens()`` returned: the whole step is submitted to the device."""
        self._gap.launched(self._clock())

    def updates(self) -> float:
        """``update_from_output()`` begins: the step has ended. Returns the time of its end."""
        now = self._clock()
        self._gap.result(now)
        return now

    def updated(self, plan: Any, result: Any, ended: float) -> None:
        """``update_from_output()`` returned ``result`` for ``plan``."""
        content = self._content_of(plan)
        batches = [batch.outputs for batch in result.values()]
        outputs = batches[0] if len(batches) == 1 else [one for batch in batches for one in batch]
        # A comprehension reads an attribute in half the time of ``map`` with ``attrgetter``.
        finished = []
        if [one.finish_reason for one in outputs].count(None) < len(outputs):
            finished = [one for one in outputs if one.finish_reason is not None]
        self._clocks.emitted(outputs, finished, ended)
        if content.requests:
            tokens = sum([len(one.new_token_ids) for one in outputs])
            self._write(content, tokens, _drafts(result), ended)

    def _content_of(self, plan: Any) -> StepContent:
        while self._planned:
            content = self._planned.popleft()
            if content.plan is plan:
                return content
        return StepContent(plan, self._most_decode)

    def _write(
        self,
        content: StepContent,
        output_tokens: int,
        drafts: tuple[float, float],
        ended: float,
    ) -> None:
        before, idle_s = self._ended, self._idle_s
        self._ended, self._idle_s = ended, 0.0
        if before is None:
            return  # it began before the hooks were installed: its duration is unknown
        running, waiting = self._counts()
        refused = UNKNOWN
        if self._refused is not None:
            total = self._refused()
            refused, self._refused_before = max(0, total - self._refused_before), total
        launch = content.launch_s
        now = self._clock()
        self._ring.record(
            self._wall() - (now - ended),
            max(0.0, ended - before - idle_s),
            content.requests,
            content.prefills,
            content.prefill_tokens,
            content.tokens - content.prefill_tokens,
            output_tokens,
            *drafts,
            running,
            waiting,
            UNKNOWN if self._free_blocks is None else self._free_blocks(),
            content.preempted,
            content.context_tokens,
            content.schedule_s,
            now - ended,
            UNKNOWN if launch is None else launch,
            self._gap.take(),
            idle_s,
            content.cached_tokens,
            refused,
        )


def _drafts(result: Any) -> tuple[float, float]:
    """Verified and accepted draft tokens, as counted by vLLM."""
    for batch in result.values():
        stats = batch.scheduler_stats
        if stats is not None:
            found = stats.spec_decoding_stats
            if found is None:
                return 0, 0
            return found.num_draft_tokens, found.num_accepted_tokens
    return UNKNOWN, UNKNOWN
