"""Assigns shares of the time of requests to causes. Pure.

By Little's law, the mean numbers of requests in the queue, the batch and the front end are
proportional to the times that a request spends there. The time in the batch is split like the time
of the steps: prefill, decode, host. The time in the queue is assigned step by step to the limit
that kept requests out of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llmtop.diagnosis.causes import Cause
from llmtop.diagnosis.moments import mean
from llmtop.diagnosis.observation import Observation
from llmtop.diagnosis.state_rules import CAP_FULL, KV_FULL, KV_NEAR, Level
from llmtop.engines.core.options import BATCH_LIMITS, TOKEN_BUDGETS
from llmtop.engines.core.requests import RequestRow

AT_BUDGET = 0.9  # a step with this share of the token budget has no room for the next prompt
LEAST_GAIN = 1.05  # ratio of throughput from which a higher batch limit is useful
LEAST_BATCH = 16  # requests in the batch: with fewer, the gain is within the error of the fit
LEAST_FIXED = 0.4  # fixed share of the steps at the budget from which a larger budget is useful
LEAST_HELD = 0.5  # share of the used KV blocks, held by a few requests, that is a cause
MOST_HOLDERS = 3  # a few requests are at most so many
LEAST_SLOWDOWN = 1.25  # ratio of step times, now over before, that is a cause with other evidence
# The ratio that is a cause without other evidence. In a container the processes of others are not
# visible. On an H200, a process that multiplied matrices gave a ratio of 2.
CLEAR_SLOWDOWN = 1.5
LOW_CLOCK = 0.65  # of the highest SM clock seen
FAULT_REASONS = frozenset({"thermal", "hardware", "brake"})  # a healthy GPU has none of these
LEAST_SPEEDUP = 1.0  # tokens per second with drafts over those without; below it drafts cost time


class Shares(Struct, frozen=True):
    """Shares of the time of requests, 0..1, by cause. The remaining time has no known cause.

    queue: the share of time in the queue. waits: by cause, the share of the queue's time that it
    kept requests waiting. at_budget: the share of the steps' time in steps at the token budget.
    fixed: the fixed share of the time of these steps, which a larger budget would spend less often.
    gain: throughput at a 1.5 times larger batch over the present one. speedup: tokens per second
    with drafts over those without. held: the few requests that hold most of the used KV cache, and
    held_share: their share of it. None means unknown.
    """

    by_cause: Mapping[Cause, float]
    queue: float
    waits: Mapping[Cause, float]
    at_budget: float = 0.0
    fixed: float | None = None
    gain: float | None = None
    speedup: float | None = None
    held: tuple[RequestRow, ...] = ()
    held_share: float = 0.0


def shares_of(seen: Observation) -> Shares:
    """The shares of all causes that the numbers show."""
    running, waiting, front = seen.running, seen.waiting, front_end_requests(seen)
    total = running + waiting + front
    if total <= 0:
        return Shares({}, 0.0, {})
    queue, batch = waiting / total, running / total
    by_cause: dict[Cause, float] = {Cause.FRONT_END: front / total}
    waits = _waits(seen)
    gain = _gain(seen)
    held, held_share = _holders(seen)
    at_budget, fixed = _budget(seen)
    inside, speedup = _inside(seen)

    kv = queue * waits.get(Cause.KV_CACHE, 0.0)
    # Prompt tokens that are computed again after a preemption are a cost of the full KV cache.
    recomputed = _recomputed(seen) * inside.get(Cause.PREFILL, 0.0)
    inside[Cause.PREFILL] = inside.get(Cause.PREFILL, 0.0) - recomputed
    kv += batch * recomputed
    if held:
        by_cause[Cause.LONG_REQUESTS] = kv * held_share
        kv *= 1 - held_share
    by_cause[Cause.KV_CACHE] = kv

    limit = queue * waits.get(Cause.BATCH_LIMIT, 0.0)
    budget = queue * waits.get(Cause.TOKEN_BUDGET, 0.0)
    compute = 0.0
    if gain is not None and gain < LEAST_GAIN and running >= LEAST_BATCH:
        compute, limit = limit, 0.0  # a higher batch limit would not help
    by_cause[Cause.BATCH_LIMIT] = limit
    if fixed is not None and fixed >= LEAST_FIXED:
        repeated = min(inside.get(Cause.DECODE, 0.0), at_budget * fixed)
        inside[Cause.DECODE] = inside.get(Cause.DECODE, 0.0) - repeated
        by_cause[Cause.TOKEN_BUDGET] = budget + batch * repeated
    else:
        compute += budget
    # The queue's time that no limit causes is split like the time of the steps.
    whole = sum(inside.values())
    for cause, share in inside.items():
        by_cause[cause] = by_cause.get(cause, 0.0) + batch * share
        if whole > 0:
            by_cause[cause] += compute * share / whole
    return Shares(by_cause, queue, waits, at_budget, fixed, gain, speedup, held, held_share)


def front_end_requests(seen: Observation) -> float:
    """The mean number of requests between the client and the scheduler.

    It is computed by Little's law from the engine's time stamps, or else from the difference
    between the client's TTFT and the engine's. 0.0 where neither is known.
    """
    inside = seen.running + seen.waiting
    found = seen.front_end
    if found is not None and found.e2e_s > 0:
        lag = found.arrival_s + found.output_s
        return inside * lag / max(1e-9, found.e2e_s - lag) if found.e2e_s > lag else inside
    client = seen.client
    if client is None or client.ttft_s is None or client.engine_ttft_s is None or not client.e2e_s:
        return 0.0
    lag = max(0.0, client.ttft_s - client.engine_ttft_s)
    return inside * lag / max(client.e2e_s - lag, lag, 1e-9)


def _waits(seen: Observation) -> dict[Cause, float]:
    """The causes that kept requests in the queue, as shares of the queue's time."""
    if seen.window is None:
        return _waits_by_limits(seen)
    cap, budget = seen.cap, seen.number(TOKEN_BUDGETS)
    ranks = max(1, seen.window.ranks)
    full = _kv_full_blocks(seen)
    found: dict[Cause, float] = {}
    total = 0.0
    for step in seen.window.steps:
        if step.waiting <= 0:
            continue
        weight = step.waiting * step.duration_s
        total += weight
        tokens = step.prefill_tokens + step.decode_tokens
        no_blocks = bool(step.preempted) or (
            full is not None and step.kv_free_blocks is not None and step.kv_free_blocks <= full
        )
        if cap and max(step.running, step.requests) >= CAP_FULL * cap / ranks:
            cause = Cause.BATCH_LIMIT
        elif no_blocks:
            cause = Cause.KV_CACHE
        elif budget and tokens >= AT_BUDGET * budget:
            cause = Cause.TOKEN_BUDGET
        elif step.waiting <= max(2.0, 0.05 * step.running):
            continue  # these requests arrived during the step and join the next one
        else:
            cause = Cause.UNKNOWN
        found[cause] = found.get(cause, 0.0) + weight
    return {cause: weight / total for cause, weight in found.items()} if total else {}


def _kv_full_blocks(seen: Observation) -> float | None:
    """The number of free blocks up to which a rank's KV cache counts as full; None where its size
    is not known."""
    if seen.window is None or seen.kv_blocks is None:
        return None
    return seen.kv_blocks * (1 - KV_FULL) / max(1, seen.window.ranks)


def _waits_by_limits(seen: Observation) -> dict[Cause, float]:
    """The same without steps, from the limits that the samples show to be reached."""
    limits = seen.finding.limits
    if "batch" in limits:
        return {Cause.BATCH_LIMIT: 1.0}
    kv = mean([m.kv_usage for m in seen.moments[-5:]])
    preempted = mean([m.preemptions_per_min for m in seen.moments[-5:]])
    if "kv" in limits or (preempted and (kv or 0.0) >= KV_NEAR):
        return {Cause.KV_CACHE: 1.0}
    return {Cause.UNKNOWN: 1.0}


def _inside(seen: Observation) -> tuple[dict[Cause, float], float | None]:
    """The causes within steps as shares of the steps' time, and the speedup by speculation."""
    window, fitted = seen.window, seen.fitted
    if window is None or window.parts.busy <= 0:
        return {}, None
    busy = window.parts.busy
    found = {Cause.PREFILL: window.parts.prefill / busy, Cause.HOST: window.parts.host / busy}
    decode = window.parts.decode / busy
    if fitted is not None:
        mean_s = busy / len(window.steps)
        requests = window.requests / len(window.steps)
        # The fixed part of a step (reading the weights) is not caused by the load. Only the part
        # that grows with the requests is counted.
        decode = min(decode, fitted.per_request_s * requests / mean_s)
    elif seen.finding.level < Level.SATURATED or seen.waiting >= 0.1 * seen.running:
        decode = 0.0  # the part that grows with the load is not known
    drafts, speedup = _drafts(seen)
    if speedup is not None and speedup < LEAST_SPEEDUP:
        found[Cause.SPECULATION] = drafts
        decode = max(0.0, decode - drafts)
    lost = _slowed(seen)
    if lost:
        decode *= 1 - lost
        found = {cause: share * (1 - lost) for cause, share in found.items()}
        found[Cause.GPU_THROTTLED] = lost
    found[Cause.DECODE] = decode
    return found, speedup


def _slowed(seen: Observation) -> float:
    """The share of the steps' time that a throttled or shared GPU costs; 0.0 without evidence.

    A busy GPU at its power limit lowers its clock in normal operation, on one H200 to 0.77 of the
    highest. A low clock alone is therefore no cause. Steps must also take longer than similar steps
    took before. The slowdown does not include a slower launch (``slowdown``).
    """
    slow = seen.slowdown is not None and seen.slowdown >= LEAST_SLOWDOWN
    fault = any(
        word in FAULT_REASONS
        for gpu in seen.gpus
        for reason in gpu.throttle or ()
        for word in reason.split()
    )
    clocks = [gpu.sm_clock_mhz for gpu in seen.gpus if gpu.sm_clock_mhz]
    low = bool(clocks and seen.sm_clock_highest and min(clocks) < LOW_CLOCK * seen.sm_clock_highest)
    throttled = any(gpu.throttle for gpu in seen.gpus)
    clear = bool(seen.gpus) and (seen.slowdown or 0.0) >= CLEAR_SLOWDOWN
    if clear or (slow and (throttled or low or seen.foreign)):
        assert seen.slowdown is not None
        return 1 - 1 / seen.slowdown
    evident = fault or (low and throttled)
    if evident and seen.slowdown is None and seen.sm_clock_highest and clocks:
        return max(0.0, 1 - min(clocks) / seen.sm_clock_highest)
    return 0.0


def _drafts(seen: Observation) -> tuple[float, float | None]:
    """The share of the steps' time that rejected drafts take, and the speedup: tokens per second
    with drafts over those without. The speedup is None without drafts."""
    window, fitted = seen.window, seen.fitted
    if window is None or not window.draft_tokens or not window.requests:
        return 0.0, None
    busy = window.parts.busy
    decoding = max(1, window.decode_tokens - window.draft_tokens)
    gained = 1 + window.accepted_tokens / decoding
    if fitted is not None:
        cost = fitted.draft_s * window.draft_tokens
    else:
        cost = busy * window.draft_tokens / max(1, window.decode_tokens + window.prefill_tokens)
    cost = min(cost, 0.95 * busy)
    # The steps do not report the time of the draft model, so this is an upper bound.
    speedup = gained * (busy - cost) / busy
    rejected = window.rejected_tokens / window.draft_tokens
    return cost / busy * rejected, speedup


def _recomputed(seen: Observation) -> float:
    return seen.window.recomputed if seen.window is not None else 0.0


def _budget(seen: Observation) -> tuple[float, float | None]:
    """The share of the steps' time in steps at the token budget, and the fixed share of the time of
    these steps. (0.0, None) where they are unknown."""
    window, fitted, budget = seen.window, seen.fitted, seen.number(TOKEN_BUDGETS)
    if window is None or not budget:
        return 0.0, None
    full = [s for s in window.steps if s.prefill_tokens + s.decode_tokens >= AT_BUDGET * budget]
    full = [s for s in full if s.prefill_tokens > 0]
    seconds = sum(step.duration_s for step in full)
    if not seconds or fitted is None or fitted.per_token_s is None:
        return 0.0, None
    tokens = sum(step.prefill_tokens for step in full)
    fixed = max(0.0, 1 - fitted.per_token_s * tokens / seconds)
    return seconds / max(1e-9, window.parts.busy), fixed


def _gain(seen: Observation) -> float | None:
    """Throughput with a batch 1.5 times as large over the present throughput; None for unknown.

    The larger batch has at most the requests that wait now.
    """
    window, fitted, cap = seen.window, seen.fitted, seen.cap
    if window is None or fitted is None or not cap or seen.option(BATCH_LIMITS) is None:
        return None
    now = max(1.0, seen.running / max(1, window.ranks))
    more = min(1.5 * now, now + seen.waiting / max(1, window.ranks))
    before = fitted.throughput(now, window.per_request)
    return fitted.throughput(more, window.per_request) / before if before > 0 else None


def _holders(seen: Observation) -> tuple[tuple[RequestRow, ...], float]:
    """The few requests that hold most of the used KV blocks, and their share of these blocks.

    ((), 0.0) where no such requests are known.
    """
    table = seen.table
    if table is None or table.running < 2 * MOST_HOLDERS:
        return (), 0.0
    rows = [row for row in table.rows if row.kv_blocks]
    rows.sort(key=lambda row: row.kv_blocks or 0, reverse=True)
    used = _used_blocks(seen)
    if used is None:
        if len(rows) < table.running:
            return (), 0.0  # the table does not have all running requests
        used = float(sum(row.kv_blocks or 0 for row in rows))
    few = rows[:MOST_HOLDERS]
    median = rows[len(rows) // 2].kv_blocks or 0 if rows else 0
    few = [row for row in few if (row.kv_blocks or 0) >= 4 * max(1, median)]
    share = sum(row.kv_blocks or 0 for row in few) / used if used else 0.0
    return (tuple(few), min(1.0, share)) if few and share >= LEAST_HELD else ((), 0.0)


def _used_blocks(seen: Observation) -> float | None:
    if seen.kv_blocks is None or seen.kv_usage is None:
        return None
    return seen.kv_blocks * seen.kv_usage
