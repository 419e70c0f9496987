"""Writes the content and the duration of each step into the step ring of the live socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import attrgetter

from llmtop.engines.simulated.simulator.model.scheduler import Emission, Plan, Scheduler
from llmtop.engines.tuning.inside.llmtop_live.step_ring import UNKNOWN, StepRing

_TOKENS = attrgetter("tokens")
MISSING = {
    "launch_s": "a simulated step is not launched",
    "output_lag": "the simulated engine writes a token when its step ends",
}


class StepRecorder:
    """Writes one row a step. wall: unix seconds. now in the methods: monotonic seconds."""

    def __init__(
        self, scheduler: Scheduler, ring: StepRing, wall: Callable[[], float] = time.time
    ) -> None:
        self._scheduler = scheduler
        self._ring = ring
        self._wall = wall
        self._began = 0.0
        self._ended: float | None = None  # end of the previous step
        self._idle_s = 0.0
        self._content = (0, 0, 0)
        self._drafted = (0, 0)
        self._refused = 0

    def resumed(self, now: float) -> None:
        """There is work again after an idle time, which is not part of the next step."""
        self._idle_s = 0.0 if self._ended is None else now - self._ended
        self._began = now

    def planned(self, plan: Plan) -> None:
        """A step begins. Reads its content now, because its results change the requests."""
        prefills = prompt = 0
        for request, tokens, drafts in plan.work:
            if tokens - drafts > 1 or not request.generated:
                prefills += 1
                prompt += tokens
        self._content = (prefills, prompt, plan.load.tokens - prompt)
        totals = self._scheduler.totals
        self._drafted = (totals.draft_tokens, totals.accepted_tokens)

    def completed(
        self,
        plan: Plan,
        emissions: Sequence[Emission],
        now: float,
        schedule_s: float,
        update_s: float,
        host_gap_s: float,
    ) -> None:
        """The step has ended. schedule_s, update_s, host_gap_s: columns of the step ring."""
        scheduler = self._scheduler
        totals = scheduler.totals
        prefills, prompt, decode = self._content
        drafts, accepted = self._drafted
        self._ring.record(
            self._wall(),
            now - self._began,
            len(plan.work),
            prefills,
            prompt,
            decode,
            sum(map(_TOKENS, emissions)),
            totals.draft_tokens - drafts,
            totals.accepted_tokens - accepted,
            len(scheduler.running),
            scheduler.queued,
            scheduler.pool.free,
            len(plan.preempted),
            plan.load.context,
            schedule_s,
            update_s,
            UNKNOWN,
            host_gap_s,
            self._idle_s,
            sum(r.hits or 0 for r in plan.admitted if not r.preemptions),
            totals.refused - self._refused,
        )
        self._refused = totals.refused
        self._idle_s = 0.0
        self._began = self._ended = now
