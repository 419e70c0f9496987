"""Which limits keep the SLO on one scheduler, from what its requests cost. Pure."""

from __future__ import annotations

from msgspec import Struct

from llmtop.slo_control.pressure import Pressure

UNLIMITED = 1 << 20
LEAST_BATCH, LEAST_QUEUE, LEAST_BUDGET = 4, 2, 256
TARGET_TPOT = 0.70  # of the TPOT limit, as the mean gap
FULL_STEP = 0.95  # of the TPOT limit, as the time of a step with the whole token budget
SPARE_BUDGET = 1.3  # times the prompt tokens that a full batch needs in a step: none may starve
TARGET_WAIT = 0.45  # of the TTFT limit, in the queue
SLACK = 3.0  # times as many free places are left as they are
LATE_TTFT = 0.75  # of the TTFT limit, as the p95: first tokens are about to be late
LEAST_ROOM = 0.08  # of the TTFT limit, for the queue however long a step takes


class Goal(Struct, frozen=True):
    """The SLO of accepted requests, seconds; None: no limit."""

    ttft_s: float | None
    tpot_s: float | None

    @property
    def time_scale_s(self) -> float:
        """The controller's unit of time, seconds: 1 for a TPOT limit of up to 50 ms, in proportion
        above."""
        return max(1.0, 20 * self.tpot_s if self.tpot_s is not None else self.ttft_s or 0.0)


class LimitValues(Struct, frozen=True):
    """The options that the controller sets. queue_limit 0: no limit."""

    batch_limit: int
    queue_limit: int
    token_budget: int = UNLIMITED


class Range(Struct, frozen=True):
    """What the operator allows it to set, and what the engine takes. Where least and most are the
    same, the option stays as it is."""

    least_batch: int = LEAST_BATCH
    most_batch: int = UNLIMITED
    least_queue: int = LEAST_QUEUE
    most_queue: int = 1 << 16
    least_budget: int = LEAST_BUDGET
    most_budget: int = UNLIMITED


class Wanted(Struct, frozen=True):
    """Limits before they are rounded."""

    batch: float
    queue: float
    budget: float


def limits_of(
    seen: Pressure, goal: Goal, own: LimitValues, now: LimitValues, allowed: Range, share: float
) -> Wanted:
    """The limits for one scheduler. now: in force. share: of the TTFT limit, for the queue."""
    most = min(own.batch_limit, allowed.most_batch)
    steady = _within(_steady_batch(seen, goal, now, most), allowed.least_batch, most)
    budget = _budget(seen, goal, own, allowed, steady)
    if goal.ttft_s is None:
        return Wanted(steady, now.queue_limit, budget)
    costs, running = seen.costs, seen.running
    room_s = max(share * goal.ttft_s - min(seen.longest_s, 0.5 * goal.ttft_s), 0.0)
    served = max(seen.first_tokens_per_s, 0.5)
    batch = steady
    if costs is not None:
        prompt_s = max(costs.prefill_s(running, budget), 1e-6)
        served = costs.served_per_s(steady)
        # A free place of the batch is a place in the queue, too: who gets it waits for the prompt.
        # So there are no more than prompts that can be computed in time.
        ended = costs.served_per_s(max(running, 1.0))
        growth = max(0.0, min(seen.arrivals_per_s, 1 / prompt_s) - ended) * goal.time_scale_s
        free = max(2.0, room_s / prompt_s) + growth
        batch = min(steady, running + free)
        if now.batch_limit <= steady:  # a load that falls by a little changes nothing
            batch = max(batch, min(now.batch_limit, running + SLACK * free))
        batch = max(batch, allowed.least_batch)
        served = costs.served_per_s(batch)
        room_s -= 0.5 * min(room_s, max(0.0, batch - running) * prompt_s)
    queue = served * max(room_s, LEAST_ROOM * goal.ttft_s)
    longest = min(own.queue_limit or allowed.most_queue, allowed.most_queue)
    return Wanted(batch, _within(queue, allowed.least_queue, longest), budget)


def _steady_batch(seen: Pressure, goal: Goal, now: LimitValues, most: int) -> float:
    """The batch whose mean gap is the target. ``most`` where TPOT is not limited, or no batch is
    quick enough: a smaller one would serve fewer requests, and none in time."""
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
