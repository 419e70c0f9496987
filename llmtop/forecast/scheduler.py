"""The engine's scheduler in virtual time. The cost of a step hardly depends on the batch size.

All decoding requests advance by one token per step. So they are sorted by the step in which they
end. A step handles only the requests that end in it, and those in prefill. Order of arrival, token
budget, batch limit, KV cache and chunked prefill are those of vLLM V1 and of the simulated engine.
Preemption is by recomputation, the latest arrival first.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from llmtop.forecast.load import PresentRequest, Settings


class VirtualRequest:
    """A request in virtual time. Times are seconds since the start of the forecast; -1: not yet.

    arrived, first, last: times of arrival, first and last token. prompt, target: tokens. serial:
    order of arrival. end_step: the step of the last token.
    """

    __slots__ = (
        "arrived",
        "end_step",
        "first",
        "generated",
        "last",
        "prefill_target",
        "prefilled",
        "prompt",
        "refused",
        "serial",
        "target",
    )

    def __init__(self, serial: int, arrived: float, prompt: int, target: int) -> None:
        self.serial, self.arrived = serial, arrived
        self.prompt, self.target = prompt, max(1, target)
        self.prefilled = 0  # tokens in the KV cache, while in prefill
        self.generated = 0
        self.prefill_target = prompt  # tokens to compute before it decodes; more after a preemption
        self.end_step = -1
        self.first = self.last = -1.0
        self.refused = False


class Plan:
    """One step: its tokens, and the requests that get a token at its end.

    firsts: requests whose prefill ends in it. ended: requests that get their last token.
    decoding: number of requests that get another token. context: tokens in the KV cache of its
    requests.
    """

    __slots__ = ("context", "decoding", "ended", "firsts", "prefill_tokens", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = self.tokens = self.context = self.prefill_tokens = self.decoding = 0
        self.firsts: list[VirtualRequest] = []
        self.ended: list[VirtualRequest] = []


class VirtualScheduler:
    """The scheduler of one rank; see the module.

    emitted: output tokens per request and step (above 1 with speculation). drafted: draft tokens
    per request and step. late_slots: a request that ends in a step still occupies its place in the
    next one. That is so with asynchronous scheduling, which plans the next step before.
    """

    def __init__(
        self,
        settings: Settings,
        emitted: float = 1.0,
        late_slots: bool = False,
        drafted: float = 0.0,
    ) -> None:
        self.settings = settings
        self.waiting: deque[VirtualRequest] = deque()
        self.peak_requests = self.peak_context = self.peak_tokens = 0
        self.preempted = 0
        self._emitted, self._drafted = max(1.0, emitted), max(0.0, drafted)
        self._late_slots = late_slots
        self._prefilling: list[VirtualRequest] = []
        self._ends: list[tuple[int, int, VirtualRequest]] = []
        self._decoding = 0
        self._context = 0.0  # tokens in the KV cache of decoding requests
        self._step = 0
        self._late = 0  # places of requests that ended in the step before

    @property
    def running(self) -> int:
        """The number of requests in the batch."""
        return self._decoding + len(self._prefilling)

    @property
    def places(self) -> int:
        """The occupied places of the batch, including those of requests that have just ended."""
        return self.running + self._late

    def begin(self, running: Iterable[tuple[VirtualRequest, PresentRequest]]) -> None:
        """Put the requests into the batch that run at the start of the forecast."""
        for request, present in running:
            request.generated = min(present.generated, request.target - 1)
            if present.generated > 0:
                request.prefilled = request.prefill_target
                self._decode(request)
            else:
                self._prefilling.append(request)

    def plan(self) -> Plan | None:
        """Plan the next step and advance all requests; None if there is no request."""
        settings = self.settings
        plan = Plan()
        self._make_room()
        plan.decoding = plan.requests = self._decoding
        plan.tokens = self._decoding + round(self._decoding * self._drafted)
        budget = settings.token_budget - plan.tokens
        plan.context = round(self._context) + self._decoding
        unfinished = []
        for request in self._prefilling:
            budget -= self._compute(plan, request, budget)
            if request.prefilled < request.prefill_target:
                unfinished.append(request)
        self._prefilling = unfinished
        used = self._used()
        while (
            self.waiting
            and budget > 0
            and self.running + len(plan.firsts) + self._late < settings.batch_limit
        ):
            request = self.waiting[0]
            if used + request.prefill_target + 16 > settings.kv_tokens and self.running + len(
                plan.firsts
            ):
                break
            self.waiting.popleft()
            used += request.prefill_target
            budget -= self._compute(plan, request, budget)
            if request.prefilled < request.prefill_target:
                self._prefilling.append(request)
        if not plan.tokens:
            return None
        self._complete(plan)
        self.peak_requests = max(self.peak_requests, plan.requests)
        self.peak_context = max(self.peak_context, plan.context)
        self.peak_tokens = max(self.peak_tokens, plan.tokens)
        return plan

    def _compute(self, plan: Plan, request: VirtualRequest, budget: int) -> int:
        count = min(request.prefill_target - request.prefilled, budget)
        if count <= 0:
            return 0
        request.prefilled += count
        plan.requests += 1
        plan.tokens += count
        plan.prefill_tokens += count
        plan.context += request.prefilled
        if request.prefilled >= request.prefill_target:
            plan.firsts.append(request)
        return count

    def _complete(self, plan: Plan) -> None:
        """Advance the requests by the step. The caller sets their times later."""
        self._step += 1
        self._context += self._decoding * self._emitted
        ends, decoding = self._ends, self._decoding
        while ends and ends[0][0] <= self._step:
            request = heapq.heappop(ends)[2]
            if request.end_step == self._step:
                plan.ended.append(request)
                self._context -= request.prompt + request.target
                decoding -= 1
        self._decoding = decoding
        for request in plan.firsts:
            request.generated += 1
            if request.generated >= request.target:
                plan.ended.append(request)
            else:
                self._decode(request)
        self._context = max(self._context, 0.0)
        self._late = len(plan.ended) if self._late_slots else 0

    def _decode(self, request: VirtualRequest) -> None:
        left = request.target - request.generated
        request.end_step = self._step + max(1, round(left / self._emitted))
        heapq.heappush(self._ends, (request.end_step, request.serial, request))
        self._decoding += 1
        self._context += request.prompt + request.generated

    def _used(self) -> float:
        return self._context + sum(request.prefill_target for request in self._prefilling)

    def _make_room(self) -> None:
        """Preempt the latest arrivals while the KV cache is full."""
        most = self.settings.kv_tokens
        while self._context + self._decoding > most and self._decoding > 1:
            latest = max(self._ends, key=lambda entry: entry[1])
            self._ends.remove(latest)
            heapq.heapify(self._ends)
            request = latest[2]
            left = (request.end_step - self._step) * self._emitted
            request.generated = max(1, min(request.target - 1, round(request.target - left)))
            self._context -= request.prompt + request.generated
            self._decoding -= 1
            request.end_step = -1
            request.prefilled = 0
            request.prefill_target = request.prompt + request.generated
            self.preempted += 1
            self.waiting.appendleft(request)
