"""The engine's scheduler in virtual time, a step at a cost that hardly depends on the batch.

Requests that decode move together, a token a step. So they are kept by the step at which they
will end, and a step looks only at those that end, and at those whose prompts are not computed yet.
Order of arrival, token budget, batch limit, room in the KV cache, prefills in pieces: as vLLM V1
and the simulated engine do it. Preemption is by recompute, the latest arrival first.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from llmtop.forecast.load import PresentRequest, Settings


class Virtual:
    """A request in virtual time. Moments in seconds after the forecast began, -1: not yet."""

    __slots__ = (
        "arrived",
        "end_step",
        "first",
        "generated",
        "known",
        "last",
        "prefilled",
        "prompt",
        "refused",
        "serial",
        "target",
    )

    def __init__(self, serial: int, arrived: float, prompt: int, target: int) -> None:
        self.serial, self.arrived = serial, arrived
        self.prompt, self.target = prompt, max(1, target)
        self.prefilled = 0  # prompt tokens in the KV cache
        self.generated = 0
        self.known = prompt  # tokens to be computed before it decodes: more after a preemption
        self.end_step = -1
        self.first = self.last = -1.0
        self.refused = False


class Plan:
    """One step: what it computes, and who gets a token at its end.

    firsts: requests whose prompts end in it. ended: those that get their last token. decoding: how
    many get a token that is not their first."""

    __slots__ = ("context", "decoding", "ended", "firsts", "prefill_tokens", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = self.tokens = self.context = self.prefill_tokens = self.decoding = 0
        self.firsts: list[Virtual] = []
        self.ended: list[Virtual] = []


class VirtualScheduler:
    """See the module. emitted: output tokens of a request a step (above 1 with speculation).
    drafted: draft tokens that a request computes in a step, besides its own.

    late_slots: a request that ends in the running step still holds its place in the next one,
    which is planned before; so it is under asynchronous scheduling.
    """

    def __init__(
        self,
        settings: Settings,
        emitted: float = 1.0,
        late_slots: bool = False,
        drafted: float = 0.0,
    ) -> None:
        self.settings = settings
        self.waiting: deque[Virtual] = deque()
        self.peak_requests = self.peak_context = self.peak_tokens = 0
        self.preempted = 0
        self._emitted, self._drafted = max(1.0, emitted), max(0.0, drafted)
        self._late_slots = late_slots
        self._prefilling: list[Virtual] = []
        self._ends: list[tuple[int, int, Virtual]] = []
        self._decoding = 0
        self._context = 0.0  # tokens in the KV cache of those that decode
        self._step = 0
        self._held = 0  # places of requests that ended in the step before

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self._decoding + len(self._prefilling)

    @property
    def places(self) -> int:
        """Places of the batch that are taken, also by requests that end in the running step."""
        return self.running + self._held

    def begin(self, held: Iterable[tuple[Virtual, PresentRequest]]) -> None:
        """Put requests into the batch that run when the forecast begins."""
        for request, found in held:
            request.generated = min(found.generated, request.target - 1)
            if found.generated > 0:
                request.prefilled = request.known
                self._decode(request)
            else:
                self._prefilling.append(request)

    def plan(self) -> Plan | None:
        """The next step, None when there is nothing to do."""
        settings = self.settings
        plan = Plan()
        self._make_room()
        plan.decoding = plan.requests = self._decoding
        plan.tokens = self._decoding + round(self._decoding * self._drafted)
        budget = settings.token_budget - plan.tokens
        plan.context = round(self._context) + self._decoding
        still = []
        for request in self._prefilling:
            budget -= self._compute(plan, request, budget)
            if request.prefilled < request.known:
                still.append(request)
        self._prefilling = still
        used = self._used()
        while (
            self.waiting
            and budget > 0
            and self.running + len(plan.firsts) + self._held < settings.batch_limit
        ):
            request = self.waiting[0]
            if used + request.known + 16 > settings.kv_tokens and self.running + len(plan.firsts):
                break
            self.waiting.popleft()
            used += request.known
            budget -= self._compute(plan, request, budget)
            if request.prefilled < request.known:
                self._prefilling.append(request)
        if not plan.tokens:
            return None
        self._complete(plan)
        self.peak_requests = max(self.peak_requests, plan.requests)
        self.peak_context = max(self.peak_context, plan.context)
        self.peak_tokens = max(self.peak_tokens, plan.tokens)
        return plan

    def _compute(self, plan: Plan, request: Virtual, budget: int) -> int:
        count = min(request.known - request.prefilled, budget)
        if count <= 0:
            return 0
        request.prefilled += count
        plan.requests += 1
        plan.tokens += count
        plan.prefill_tokens += count
        plan.context += request.prefilled
        if request.prefilled >= request.known:
            plan.firsts.append(request)
        return count

    def _complete(self, plan: Plan) -> None:
        """What the step gives; its moment is known later."""
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
        self._held = len(plan.ended) if self._late_slots else 0

    def _decode(self, request: Virtual) -> None:
        left = request.target - request.generated
        request.end_step = self._step + max(1, round(left / self._emitted))
        heapq.heappush(self._ends, (request.end_step, request.serial, request))
        self._decoding += 1
        self._context += request.prompt + request.generated

    def _used(self) -> float:
        return self._context + sum(request.known for request in self._prefilling)

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
            request.known = request.prompt + request.generated
            self.preempted += 1
            self.waiting.appendleft(request)
