"""Which cause takes which share of the time that requests spend. Pure.

By Little's law, the numbers of requests in the queue, the batch and the front end are proportional
to the times that a request spends there. The time in the batch is split like the steps: prefill,
decode, host. The queue's time is assigned to the limit that kept requests out of the batch in each
step.
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

AT_BUDGET = 0.9  # of the token budget: the rest of it is too small for the next prompt
USEFUL = 1.05  # so much more throughput makes a higher batch limit worth something
LARGE = 16  # requests in the batch: of fewer, the fit does not tell so small a gain from noise
FIXED = 0.4  # of a step at the budget: from there on a larger budget pays
HELD = 0.5  # of the used KV blocks, by a few requests
FEW = 3
SLOWER = 1.25  # times as long as like steps took before
# From here on the GPU is slowed or shared, even where nothing else shows it: in a container the
# processes of others are not visible. A process that multiplied matrices on an H200 made it 2.
MUCH_SLOWER = 1.5
LOW_CLOCK = 0.65  # of the highest SM clock seen
HARD = frozenset({"thermal", "hardware", "brake"})  # reasons that no healthy GPU has
PAYS = 1.0  # tokens a second with drafts over those without


class Shares(Struct, frozen=True):
    """Shares of the time of requests, by cause; what is left over has none.

    queue: the share in the queue. waits: of the queue, by what kept it waiting. at_budget: share of
    the steps that were at the token budget. fixed: of these steps' time, what a larger budget would
    not repeat. gain: throughput at 1.5 times the batch limit over that now. speedup: tokens a
    second with drafts over those without. held: requests that hold most of the KV cache.
    """

    of: Mapping[Cause, float]
    queue: float
    waits: Mapping[Cause, float]
    at_budget: float = 0.0
    fixed: float | None = None
    gain: float | None = None
    speedup: float | None = None
    held: tuple[RequestRow, ...] = ()
    held_share: float = 0.0


def shares_of(seen: Observation) -> Shares:
    """The shares of every cause that the numbers show."""
    running, waiting, front = seen.running, seen.waiting, in_front(seen)
    total = running + waiting + front
    if total <= 0:
        return Shares({}, 0.0, {})
    queue, batch = waiting / total, running / total
    of: dict[Cause, float] = {Cause.FRONT_END: front / total}
    waits = _waits(seen)
    gain = _gain(seen)
    held, held_share = _holders(seen)
    at_budget, fixed = _budget(seen)
    inside, speedup = _inside(seen)

    kv = queue * waits.get(Cause.KV_CACHE, 0.0)
    again = _recomputed(seen) * inside.get(Cause.PREFILL, 0.0)
    inside[Cause.PREFILL] = inside.get(Cause.PREFILL, 0.0) - again
    kv += batch * again
    if held:
        of[Cause.LONG_REQUESTS] = kv * held_share
        kv *= 1 - held_share
    of[Cause.KV_CACHE] = kv

    limit = queue * waits.get(Cause.BATCH_LIMIT, 0.0)
    budget = queue * waits.get(Cause.TOKEN_BUDGET, 0.0)
    compute = 0.0
    if gain is not None and gain < USEFUL and running >= LARGE:
        compute, limit = limit, 0.0
    of[Cause.BATCH_LIMIT] = limit
    if fixed is not None and fixed >= FIXED:
        repeated = min(inside.get(Cause.DECODE, 0.0), at_budget * fixed)
        inside[Cause.DECODE] = inside.get(Cause.DECODE, 0.0) - repeated
        of[Cause.TOKEN_BUDGET] = budget + batch * repeated
    else:
        compute += budget
    # If no limit causes the queue, its share is split like the time of the steps.
    whole = sum(inside.values())
    for cause, share in inside.items():
        of[cause] = of.get(cause, 0.0) + batch * share
        if whole > 0:
            of[cause] += compute * share / whole
    return Shares(of, queue, waits, at_budget, fixed, gain, speedup, held, held_share)


def in_front(seen: Observation) -> float:
    """Requests between their client and the scheduler, by the engine's stamps or the client's."""
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
    """What kept the queue waiting, as shares of it."""
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
            continue  # arrived during the step, for the next one
        else:
            cause = Cause.UNKNOWN
        found[cause] = found.get(cause, 0.0) + weight
    return {cause: weight / total for cause, weight in found.items()} if total else {}


def _kv_full_blocks(seen: Observation) -> float | None:
    """Free blocks at or below which a rank's cache is full; None: its size is not known."""
    if seen.window is None or seen.kv_blocks is None:
        return None
    return seen.kv_blocks * (1 - KV_FULL) / max(1, seen.window.ranks)


def _waits_by_limits(seen: Observation) -> dict[Cause, float]:
    """The same without steps, by what the samples show to be full."""
    limits = seen.finding.limits
    if "batch" in limits:
        return {Cause.BATCH_LIMIT: 1.0}
    kv = mean([m.kv_usage for m in seen.moments[-5:]])
    preempted = mean([m.preemptions_per_min for m in seen.moments[-5:]])
    if "kv" in limits or (preempted and (kv or 0.0) >= KV_NEAR):
        return {Cause.KV_CACHE: 1.0}
    return {Cause.UNKNOWN: 1.0}


def _inside(seen: Observation) -> tuple[dict[Cause, float], float | None]:
    """The causes within steps as shares of the steps' time, and what speculation gains."""
    window, fitted = seen.window, seen.fitted
    if window is None or window.parts.busy <= 0:
        return {}, None
    busy = window.parts.busy
    found = {Cause.PREFILL: window.parts.prefill / busy, Cause.HOST: window.parts.host / busy}
    decode = window.parts.decode / busy
    if fitted is not None:
        mean_s = busy / len(window.steps)
        requests = window.requests / len(window.steps)
        # What a step takes at any load (reading the weights) is nothing that a request waits for.
        decode = min(decode, fitted.per_request_s * requests / mean_s)
    elif seen.finding.level < Level.SATURATED or seen.waiting >= 0.1 * seen.running:
        decode = 0.0  # how much of it grows with the load is not known
    drafts, speedup = _drafts(seen)
    if speedup is not None and speedup < PAYS:
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
    """The share of the steps' time that a slowed or shared GPU costs; 0.0 where nothing shows one.

    At its own power limit a busy GPU lowers its clock as a matter of course, on one H200 to 0.77 of
    the highest. That is no cause: steps must take longer than like ones did before. What the launch
    takes longer is not among it (``slowdown``).
    """
    slow = seen.slowdown is not None and seen.slowdown >= SLOWER
    hard = any(
        word in HARD
        for gpu in seen.gpus
        for reason in gpu.throttle or ()
        for word in reason.split()
    )
    clocks = [gpu.sm_clock_mhz for gpu in seen.gpus if gpu.sm_clock_mhz]
    low = bool(clocks and seen.sm_clock_highest and min(clocks) < LOW_CLOCK * seen.sm_clock_highest)
    held = any(gpu.throttle for gpu in seen.gpus)
    alone = bool(seen.gpus) and (seen.slowdown or 0.0) >= MUCH_SLOWER
    if alone or (slow and (held or low or seen.foreign)):
        assert seen.slowdown is not None
        return 1 - 1 / seen.slowdown
    if (hard or (low and held)) and seen.slowdown is None and seen.sm_clock_highest and clocks:
        return max(0.0, 1 - min(clocks) / seen.sm_clock_highest)
    return 0.0


def _drafts(seen: Observation) -> tuple[float, float | None]:
    """The share of the steps' time that rejected drafts take, and tokens/s with over without."""
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
    # What the drafter itself takes is not among the steps' columns: the gain is at most this.
    speedup = gained * (busy - cost) / busy
    rejected = window.rejected_tokens / window.draft_tokens
    return cost / busy * rejected, speedup


def _recomputed(seen: Observation) -> float:
    return seen.window.recomputed if seen.window is not None else 0.0


def _budget(seen: Observation) -> tuple[float, float | None]:
    """The share of the steps' time at the token budget, and the fixed share of these steps."""
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
    """Throughput with half as many more requests in the batch, as far as they are there."""
    window, fitted, cap = seen.window, seen.fitted, seen.cap
    if window is None or fitted is None or not cap or seen.option(BATCH_LIMITS) is None:
        return None
    now = max(1.0, seen.running / max(1, window.ranks))
    more = min(1.5 * now, now + seen.waiting / max(1, window.ranks))
    before = fitted.throughput(now, window.per_request)
    return fitted.throughput(more, window.per_request) / before if before > 0 else None


def _holders(seen: Observation) -> tuple[tuple[RequestRow, ...], float]:
    """The few requests that hold most of the used KV blocks, and their share."""
    table = seen.table
    if table is None or table.running < 2 * FEW:
        return (), 0.0
    rows = [row for row in table.rows if row.kv_blocks]
    rows.sort(key=lambda row: row.kv_blocks or 0, reverse=True)
    used = _used_blocks(seen)
    if used is None:
        if len(rows) < table.running:
            return (), 0.0  # the rest of them is not in the table
        used = float(sum(row.kv_blocks or 0 for row in rows))
    few = rows[:FEW]
    usual = rows[len(rows) // 2].kv_blocks or 0 if rows else 0
    few = [row for row in few if (row.kv_blocks or 0) >= 4 * max(1, usual)]
    share = sum(row.kv_blocks or 0 for row in few) / used if used else 0.0
    return (tuple(few), min(1.0, share)) if few and share >= HELD else ((), 0.0)


def _used_blocks(seen: Observation) -> float | None:
    if seen.kv_blocks is None or seen.kv_usage is None:
        return None
    return seen.kv_blocks * seen.kv_usage
