"""Computes the limits that keep the SLO on one scheduler, from the cost of its requests. Pure."""

from __future__ import annotations

from msgspec import Struct

from llmtop.slo_control.pressure import Pressure

UNLIMITED = 1 << 20
LEAST_BATCH, LEAST_QUEUE, LEAST_BUDGET = 4, 2, 256  # requests, requests, tokens in a step
TARGET_TPOT = 0.70  # target of the mean gap, as a share of the TPOT limit
FULL_STEP = 0.95  # time of a step with the whole token budget, as a share of the TPOT limit
# The token budget is at least this many times the mean number of prompt tokens that a full batch
# needs in a step. Otherwise prefills would starve.
SPARE_BUDGET = 1.3
TARGET_WAIT = 0.45  # time in the queue, as a share of the TTFT limit, to begin with
SLACK = 3.0  # a batch limit in force is kept while it leaves at most so many times the free slots
LATE_TTFT = 0.75  # TTFT p95, as a share of its limit, above which the queue must become shorter
LEAST_ROOM = 0.08  # share of the TTFT limit that the queue gets however long a step takes


class Goal(Struct, frozen=True):
    """The SLO of accepted requests, in seconds; None for no limit."""

    ttft_s: float | None
    tpot_s: float | None

    @property
    def time_scale_s(self) -> float:
        """The controller's unit of time, in seconds. It is 1 s for a TPOT limit of up to 50 ms, and
        20 times a larger limit. Without a TPOT limit it is the TTFT limit, at least 1 s."""
        return max(1.0, 20 * self.tpot_s if self.tpot_s is not None else self.ttft_s or 0.0)


class LimitValues(Struct, frozen=True):
    """The options that the controller sets. batch_limit, queue_limit: requests; queue_limit 0 means
    no limit. token_budget: tokens in a step."""

    batch_limit: int
    queue_limit: int
    token_budget: int = UNLIMITED


class Range(Struct, frozen=True):
    """The values that the operator allows and the engine accepts. An option whose least and most
    value are equal is not changed."""

    least_batch: int = LEAST_BATCH
    most_batch: int = UNLIMITED
    least_queue: int = LEAST_QUEUE
    most_queue: int = 1 << 16
    least_budget: int = LEAST_BUDGET
    most_budget: int = UNLIMITED


class TargetLimits(Struct, frozen=True):
    """Computed limits, not yet rounded to whole numbers."""

    batch: float
    queue: float
    budget: float


def limits_of(
    seen: Pressure, goal: Goal, own: LimitValues, now: LimitValues, allowed: Range, share: float
) -> TargetLimits:
    """The limits for one scheduler.

    own: the operator's values. now: the limits in force. share: the part of the TTFT limit that a
    request may spend in the queue, 0..1.
    """
    most = min(own.batch_limit, allowed.most_batch)
    steady = _within(_steady_batch(seen, goal, now, most), allowed.least_batch, most)
    budget = _budget(seen, goal, own, allowed, steady)
    if goal.ttft_s is None:
        return TargetLimits(steady, now.queue_limit, budget)
    costs, running = seen.costs, seen.running
    room_s = max(share * goal.ttft_s - min(seen.longest_s, 0.5 * goal.ttft_s), 0.0)
    served = max(seen.first_tokens_per_s, 0.5)
    batch = steady
    if costs is not None:
        prompt_s = max(costs.prefill_s(running, budget), 1e-6)
        served = costs.served_per_s(steady)
        # A request in a free slot of the batch also waits: for the prefills before its own. So the
        # batch gets no more free slots than prompts can be computed in time.
        ended = costs.served_per_s(max(running, 1.0))
        growth = max(0.0, min(seen.arrivals_per_s, 1 / prompt_s) - ended) * goal.time_scale_s
        free = max(2.0, room_s / prompt_s) + growth
        batch = min(steady, running + free)
        if now.batch_limit <= steady:  # a small fall of the load does not change the limit
            batch = max(batch, min(now.batch_limit, running + SLACK * free))
        batch = max(batch, allowed.least_batch)
        served = costs.served_per_s(batch)
        room_s -= 0.5 * min(room_s, max(0.0, batch - running) * prompt_s)
    queue = served * max(room_s, LEAST_ROOM * goal.ttft_s)
    longest = min(own.queue_limit or allowed.most_queue, allowed.most_queue)
    return TargetLimits(batch, _within(queue, allowed.least_queue, longest), budget)


def _steady_batch(seen: Pressure, goal: Goal, now: LimitValues, most: int) -> float:
    """The batch whose mean gap is the target. It is ``most`` where TPOT has no limit.

    It is also ``most`` where even one request exceeds the target: a smaller batch would serve fewer
    requests, and none of them in time.
    """
    if goal.tpot_s is None:
        return most
    if seen.costs is None:
        return now.batch_limit
    batch = seen.costs.batch_of(TARGET_TPOT * goal.tpot_s)
    return batch if batch >= 1 else most


def _budget(seen: Pressure, goal: Goal, own: LimitValues, allowed: Range, batch: float) -> float:
    most = min(own.token_budget, allowed.most_budget)
    costs = seen.costs
    if goal.tpot_s is None or costs is None:
        return own.token_budget
    step_s = FULL_STEP * goal.tpot_s * costs.emitted
    needed = batch * (1 + SPARE_BUDGET * costs.prompt / costs.steps)
    wanted = max(costs.budget_of(step_s, seen.running), needed)
    return _within(wanted, allowed.least_budget, most)


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
