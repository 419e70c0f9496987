"""The scheduler: decides which tokens of which requests each step computes. No clock, no sockets.

It works like vLLM V1. A step first has decodes and unfinished prefills, in order of arrival. Then
it admits requests from the queue, first come first served, within the token budget, the sequence
limit and the free blocks. Prefills are chunked. Preempted requests are recomputed; the latest
arrival is preempted first.

``schedule`` plans a step and ``complete`` applies its results; the duration of the step passes
between the two calls. Invariant: every running request arrived before every waiting one.
"""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

from msgspec import Struct, field

from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.request import Request, Stage
from llmtop.engines.simulated.simulator.model.roofline import StepLoad
from llmtop.engines.simulated.simulator.model.speculation import Speculation


class Limits(Struct, frozen=True):
    """The options that can change while the engine runs.

    num_speculative_tokens: 0 is speculation off. max_queued_requests: requests that may wait, 0 for
    no limit. The front end enforces it (``engine.Engine.has_room``), before the scheduler receives
    a request.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    num_speculative_tokens: int = 0
    max_queued_requests: int = 0


class Work(NamedTuple):
    """The tokens of one request in a step; the last ``drafts`` of them are draft tokens."""

    request: Request
    tokens: int
    drafts: int


class Plan(Struct, frozen=True):
    """One step. admitted: requests that left the queue. preempted: requests that returned to it."""

    work: list[Work]
    load: StepLoad
    admitted: list[Request]
    preempted: list[Request]


class Emission(NamedTuple):
    """New tokens of one request after a step. first: whether the step finished its prefill."""

    request: Request
    tokens: int
    drafts: int
    first: bool


class Totals(Struct):
    """Counters since the start. Their unit is tokens unless noted."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0  # events
    refused: int = 0  # requests that arrived at a full queue
    evictions: int = 0  # events requested by an operator; part of preemptions
    drafts: int = 0  # drafts with at least one token
    draft_tokens: int = 0
    accepted_tokens: int = 0
    accepted_at: list[int] = field(default_factory=list)  # by position in the draft


class Scheduler:
    """The scheduler; see the module.

    asynchronous: as in vLLM by default, the next step is planned while a step runs. So a request
    that arrives during a step joins the step after the next. n-gram speculation disables this.
    limits: can be replaced between steps. A lower max_num_seqs stops admissions until enough
    requests have finished; ``evict`` preempts the others at once. late: requests that arrived after
    the next step was planned; they wait behind ``waiting``.
    """

    def __init__(
        self,
        limits: Limits,
        pool: BlockPool,
        rng: random.Random,
        speculation: Speculation | None = None,
        asynchronous: bool = True,
    ) -> None:
        self.limits = limits
        self.pool = pool
        self.speculation = speculation
        self.running: list[Request] = []
        self.waiting: deque[Request] = deque()
        self.totals = Totals(accepted_at=[0] * (speculation.tokens if speculation else 0))
        self._asynchronous = asynchronous
        self.late: deque[Request] = deque()
        self._rng = rng

    @property
    def queued(self) -> int:
        """The number of waiting requests."""
        return len(self.waiting) + len(self.late)

    def add(self, request: Request) -> None:
        """Queue a request. Its prompt and its target together must fit into the pool."""
        request.stage = Stage.WAITING
        if self._asynchronous and self.running:
            self.late.append(request)
        else:
            self.waiting.append(request)

    def abort(self, request: Request) -> None:
        """Remove a running or waiting request and free its blocks."""
        if request.stage is Stage.RUNNING:
            self.running.remove(request)
        elif request in self.late:
            self.late.remove(request)
        elif request.stage is Stage.WAITING:
            self.waiting.remove(request)
        self._finish(request)

    def evict(self) -> int:
        """Preempt running requests above max_num_seqs. Returns their number."""
        evicted = 0
        while len(self.running) > self.limits.max_num_seqs:
            self._preempt(self.running.pop())
            evicted += 1
        self.totals.evictions += evicted
        return evicted

    def schedule(self) -> Plan | None:
        """Plan the next step; None without work."""
        if not self.running:
            self._catch_up()
            if not self.waiting:
                return None
        work: list[Work] = []
        preempted: list[Request] = []
        budget = self._continue_running(work, preempted)
        admitted = [] if preempted else self._admit(work, budget)
        self._catch_up()
        return Plan(work, _load(work), admitted, preempted)

    def complete(self, plan: Plan) -> list[Emission]:
        """Apply the results of a step. Returns the new tokens, in the order of the plan."""
        emissions: list[Emission] = []
        finished = False
        for item in plan.work:
            request = item.request
            if request.stage is Stage.FINISHED:  # aborted during the step
                continue
            before, total = request.computed, request.total
            sampled = before + item.tokens - item.drafts == total
            accepted = self._accept(request, item.drafts) if item.drafts else 0
            request.computed = before + item.tokens - item.drafts + accepted
            self._publish(request)
            if not sampled:
                continue
            request.generated += 1 + accepted
            first = request.generated == 1 + accepted
            emissions.append(Emission(request, 1 + accepted, item.drafts, first))
            if request.generated >= request.target:
                self._finish(request)
                finished = True
        if finished:
            self.running = [r for r in self.running if r.stage is Stage.RUNNING]
        return emissions

    def _catch_up(self) -> None:
        self.waiting.extend(self.late)
        self.late.clear()

    def _continue_running(self, work: list[Work], preempted: list[Request]) -> int:
        budget = self.limits.max_num_batched_tokens
        size = self.pool.block_size
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            known = request.total - request.computed
            drafts = self._propose(request) if self.speculation and known == 1 else 0
            tokens = min(known + drafts, budget)
            drafts = max(0, tokens - known)
            missing = -(-(request.computed + tokens) // size) - len(request.blocks)
            if missing > 0 and not self._grow(request, missing, preempted):
                break
            work.append(Work(request, tokens, drafts))
            budget -= tokens
            index += 1
        return budget

    def _grow(self, request: Request, count: int, preempted: list[Request]) -> bool:
        """Allocate blocks for a running request, if necessary by preempting the latest arrivals.

        Returns False if the request itself was preempted.
        """
        while (blocks := self.pool.allocate(count)) is None:
            victim = self.running.pop()
            self._preempt(victim)
            preempted.append(victim)
            if victim is request:
                return False
        request.blocks.extend(blocks)
        return True

    def _admit(self, work: list[Work], budget: int) -> list[Request]:
        admitted: list[Request] = []
        size = self.pool.block_size
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            request = self.waiting[0]
            keys = self._cached_prefix(request)
            computed = len(keys) * size
            tokens = min(request.total - computed, budget)
            blocks = self.pool.claim(keys, -(-(computed + tokens) // size) - len(keys))
            if blocks is None:
                break
            self.waiting.popleft()
            request.stage = Stage.RUNNING
            request.blocks = blocks
            request.computed = computed
            request.published = len(keys)
            if request.hits is None:  # blocks that a preempted request finds again are no hits
                request.hits = computed
                if self.pool.caching:
                    self.totals.prefix_queries += request.total
                    self.totals.prefix_hits += computed
            self.running.append(request)
            admitted.append(request)
            work.append(Work(request, tokens, 0))
            budget -= tokens
        return admitted

    def _cached_prefix(self, request: Request) -> list[int]:
        keys: list[int] = []
        if not self.pool.caching:
            return keys
        size = self.pool.block_size
        for block in range((request.total - 1) // size):  # at least one token must be computed
            key = request.key(block, size)
            if not self.pool.cached(key):
                break
            keys.append(key)
        return keys

    def _propose(self, request: Request) -> int:
        assert self.speculation is not None
        room = request.target - request.generated - 1
        limit = min(self.limits.num_speculative_tokens, room)
        return self.speculation.propose(request.affinity, limit, self._rng)

    def _accept(self, request: Request, drafts: int) -> int:
        assert self.speculation is not None
        accepted = self.speculation.accept(request.affinity, drafts, self._rng)
        self.totals.drafts += 1
        self.totals.draft_tokens += drafts
        self.totals.accepted_tokens += accepted
        for position in range(accepted):
            self.totals.accepted_at[position] += 1
        return accepted

    def _publish(self, request: Request) -> None:
        size = self.pool.block_size
        full = request.computed // size
        if full > request.published and self.pool.caching:
            for block in range(request.published, full):
                self.pool.publish(request.blocks[block], request.key(block, size))
            request.published = full

    def _preempt(self, request: Request) -> None:
        self._release(request)
        request.stage = Stage.WAITING
        request.preemptions += 1
        self.totals.preemptions += 1
        self.waiting.appendleft(request)

    def _finish(self, request: Request) -> None:
        self._release(request)
        request.stage = Stage.FINISHED

    def _release(self, request: Request) -> None:
        self.pool.release(request.blocks)
        request.blocks = []
        request.computed = 0
        request.published = 0


def _load(work: list[Work]) -> StepLoad:
    tokens = context = pairs = emitted = longest = 0
    for item in work:
        request, count = item.request, item.tokens
        end = request.computed + count
        tokens += count
        context += end
        pairs += count * (end - count // 2)
        emitted += end >= request.total
        longest = max(longest, item.drafts)
    return StepLoad(tokens, context, pairs, emitted, longest)
