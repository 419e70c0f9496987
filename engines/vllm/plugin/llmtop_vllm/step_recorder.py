"""One row of the ring for each step of one scheduler.

A step lasts from the moment at which the engine's thread has the result of the step before to the
one at which it has its own. That holds for synchronous scheduling (plan, launch, result) and for
asynchronous scheduling, where the next step is planned and launched before the result is there.
Time in which there was no work is not part of a step.
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

NO_PREEMPTED = "this scheduler's plans do not say which requests were preempted"
MOST_PLANNED = 64  # steps whose result is awaited: two, or as many as there are pipeline stages


class StepRecorder:
    """Follows one scheduler on the engine's thread.

    counts: (running, waiting). free_blocks: KV blocks that are free. refused: requests that were
    refused at the queue limit, in all. most_decode: tokens of a decoding request at most. seen:
    told of a column that may stay empty whether it was known, and else the reason.
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
        seen: Callable[[str, bool, str], None] = lambda *told: None,
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
        self._begun = 0.0  # the present schedule(), execute_model() or update_from_output()
        self._ended: float | None = None  # when the last step ended
        self._idle_s = 0.0  # since then

    # The hooks, in the order of a step.

    def idle(self, begun: float) -> None:
        """There was no work since ``begun``."""
        now = self._clock()
        self._idle_s += now - begun
        self._gap.idle_s += now - begun

    def plans(self) -> None:
        """``schedule()`` begins."""
        self._begun = now = self._clock()
        self._gap.look(now)

    def planned(self, plan: Any) -> None:
        """``schedule()`` has made this plan."""
        content = StepContent(plan, self._most_decode)
        self._planned.append(content)
        self._seen("preempted", content.preempted == content.preempted, NO_PREEMPTED)
        self._clocks.admitted(plan.scheduled_new_reqs, self._begun)
        now = self._clock()
        content.schedule_s = now - self._begun
        if self._ended is None:
            self._ended = self._begun  # the first step of all has none before it
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
        """``sample_tokens()`` returned: the device has all of the step now."""
        self._gap.launched(self._clock())

    def updates(self) -> float:
        """``update_from_output()`` begins: the step is over. The result is when."""
        now = self._clock()
        self._gap.result(now)
        return now

    def updated(self, plan: Any, result: Any, ended: float) -> None:
        """``update_from_output()`` has taken in the result of ``plan``."""
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
            return  # it was under way when we came: how long it took is not known
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
    """Draft tokens that were checked and those that were accepted, as vLLM itself counts them."""
    for batch in result.values():
        stats = batch.scheduler_stats
        if stats is not None:
            found = stats.spec_decoding_stats
            if found is None:
                return 0, 0
            return found.num_draft_tokens, found.num_accepted_tokens
    return UNKNOWN, UNKNOWN
