"""Proposes a change of an option for a cause, with its expected effect. Pure.

The expected values come from the step fit and Little's law. They assume the present load: a fixed
number of requests with the same lengths. They are estimates; ``llmtop forecast`` gives intervals.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmtop.diagnosis.cause_rules import Shares
from llmtop.diagnosis.causes import Cause, Knob
from llmtop.diagnosis.observation import (
    CACHES,
    DRAFTS,
    EAGER,
    Observation,
)
from llmtop.engines.core.options import BATCH_LIMITS, TOKEN_BUDGETS, Applies, Option, OptionValue

BASIS = "estimate from the engine's own step times, at this load"
STEP = 1.5  # factor of one change of a limit: an estimate far from the measured range is not good
WIDE_BUDGET, LEAST_BUDGET = 8192, 512  # bounds of a proposed token budget, tokens
STALL = 2.0  # longest step over the median from which a smaller budget shortens the gaps
FULL_CACHE = 0.92  # proposed share of the GPU memory for the engine
LEAST_GAIN = 1.02  # ratio of tokens per second: with less, a larger batch only makes tokens slower


def knob_for(cause: Cause, seen: Observation, shares: Shares) -> Knob | None:
    """The proposed change for a cause; None where no option of this engine is known to help."""
    if cause is Cause.BATCH_LIMIT:
        return _batch(seen)
    if cause is Cause.KV_CACHE:
        return _cache(seen)
    if cause is Cause.TOKEN_BUDGET:
        return _budget_up(seen)
    if cause is Cause.PREFILL:
        return _budget_down(seen)
    if cause is Cause.SPECULATION:
        return _drafts_off(seen, shares)
    if cause is Cause.HOST:
        return _graphs(seen)
    return None


def _knob(
    option: Option, after: OptionValue, expected: Mapping[str, float] | None = None
) -> Knob | None:
    if after == option.value:
        return None
    applies = option.applies
    if isinstance(after, int | float) and not isinstance(after, bool):
        outside = (option.maximum is not None and after > option.maximum) or (
            option.minimum is not None and after < option.minimum
        )
        if outside:
            applies = Applies.RESTART
    basis = BASIS if expected else ""
    return Knob(option.name, option.value, after, applies, expected or {}, basis)


def _round(value: float) -> int:
    """The nearest multiple of 1, 8, 16 or 64, by the size of the value."""
    step = 1 if value < 16 else 8 if value < 128 else 16 if value < 512 else 64
    return max(1, round(value / step) * step)


def _batch(seen: Observation) -> Knob | None:
    option = seen.option(BATCH_LIMITS)
    if option is None or not isinstance(option.value, int) or isinstance(option.value, bool):
        return None
    ranks = max(1, len(option.ranks))
    wanted = min(STEP * option.value, (seen.running + seen.waiting) / ranks)
    if seen.kv_usage:
        wanted = min(wanted, 0.9 * option.value / max(0.05, seen.kv_usage))
    maximum = option.maximum
    if maximum is not None and option.value < maximum < wanted:
        wanted = maximum  # the largest value without a restart
    after = _round(wanted)
    if maximum is not None and after > maximum > option.value:
        after = int(maximum)
    if after <= option.value:
        return None
    expected = _with_batch(seen, ranks * after)
    if not expected and maximum is not None and after > maximum:
        return None  # a restart is not proposed without an estimate
    tokens, more = _tokens_per_s(seen), expected.get("output_tokens_per_s")
    if tokens and more is not None and more < LEAST_GAIN * tokens:
        return None
    return _knob(option, after, expected)


def _with_batch(seen: Observation, limit: float) -> dict[str, float]:
    """The expected values with another batch limit, for the present requests; {} for unknown."""
    window, fitted = seen.window, seen.fitted
    if window is None or fitted is None or seen.running < 1:
        return {}
    ranks = max(1, window.ranks)
    requests = seen.running + seen.waiting
    running = min(limit, requests)
    now, then = (
        fitted.throughput(value / ranks, window.per_request) for value in (seen.running, running)
    )
    if now <= 0:
        return {}
    tokens = _tokens_per_s(seen)
    found: dict[str, float] = {}
    if tokens:
        found["output_tokens_per_s"] = tokens * then / now
    seconds = running / ranks / then
    found["tpot_s"] = seconds
    rate = seen.sample.requests_per_s if seen.sample is not None else None
    if rate and not seen.finding.growth:
        found["ttft_s"] = (requests - running) / (rate * then / now) + seconds
    return found


def _tokens_per_s(seen: Observation) -> float | None:
    window = seen.window
    if window is None or window.seconds <= 0:
        return None
    emitted = [step.output_tokens for step in window.steps]
    known = [tokens for tokens in emitted if tokens is not None]
    return sum(known) / window.seconds if len(known) == len(emitted) else None


def _cache(seen: Observation) -> Knob | None:
    batch = seen.option(BATCH_LIMITS)
    window = seen.window
    if window is not None and window.preempted and batch is not None:
        # As many requests as fit in the cache. Any more are preempted and computed again.
        fitting = _round(0.9 * seen.running / max(1, window.ranks))
        if isinstance(batch.value, int) and fitting < batch.value:
            lost = window.recomputed * window.parts.prefill / max(1e-9, window.parts.busy)
            tokens = _tokens_per_s(seen)
            expected = {"recomputed_share": 0.0}
            if tokens:
                expected["output_tokens_per_s"] = 0.9 * tokens / max(0.1, 1 - lost)
            return _knob(batch, fitting, expected)
    memory = seen.option(CACHES)
    if memory is not None and isinstance(memory.value, float) and memory.value < FULL_CACHE:
        return _knob(memory, FULL_CACHE)
    return None


def _budget_up(seen: Observation) -> Knob | None:
    option, window, fitted = seen.option(TOKEN_BUDGETS), seen.window, seen.fitted
    if option is None or not isinstance(option.value, int) or window is None or fitted is None:
        return None
    wanted = min(4 * option.value, WIDE_BUDGET)
    if option.maximum is not None and option.value < option.maximum < wanted:
        wanted = int(option.maximum)
    if wanted <= option.value or fitted.per_token_s is None:
        return None
    requests = window.requests / len(window.steps)
    before, after = (budget / fitted.seconds(requests, budget) for budget in (option.value, wanted))
    longest = fitted.seconds(requests, wanted)
    return _knob(option, wanted, {"prefill_tokens_per_s": after, "prefill_gain": after / before,
                                  "longest_step_s": longest})  # fmt: skip


def _budget_down(seen: Observation) -> Knob | None:
    option, window, fitted = seen.option(TOKEN_BUDGETS), seen.window, seen.fitted
    if option is None or not isinstance(option.value, int) or window is None or fitted is None:
        return None
    if window.longest_s < STALL * window.median_s or fitted.per_token_s is None:
        return None
    wanted = max(LEAST_BUDGET, option.value // 4)
    requests = window.requests / len(window.steps)
    wanted = max(wanted, _round(4 * requests))
    if option.minimum is not None:
        wanted = max(wanted, int(option.minimum))
    if wanted > option.value // 2:
        return None
    return _knob(option, wanted, {"longest_step_s": fitted.seconds(requests, wanted)})


def _drafts_off(seen: Observation, shares: Shares) -> Knob | None:
    option = seen.option(DRAFTS)
    if option is None or not isinstance(option.value, int) or option.value <= 0:
        return None
    tokens = _tokens_per_s(seen)
    expected: dict[str, float] = {}
    if tokens and shares.speedup:
        expected["output_tokens_per_s"] = tokens / shares.speedup
    return _knob(option, 0, expected)


def _graphs(seen: Observation) -> Knob | None:
    option = seen.option(EAGER)
    return _knob(option, False) if option is not None and option.value is True else None
