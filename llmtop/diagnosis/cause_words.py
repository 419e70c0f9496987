"""Describes causes in words and numbers: a clause, the evidence, and what is not the limit."""

from __future__ import annotations

from llmtop.diagnosis.cause_rules import Shares
from llmtop.diagnosis.causes import Cause, Evidence
from llmtop.diagnosis.observation import Observation
from llmtop.diagnosis.state_rules import CAP_NEAR, KV_NEAR
from llmtop.engines.core.options import TOKEN_BUDGETS
from llmtop.wording import format as f

Numbers = dict[str, float | int | str | bool | None]
Description = tuple[str, Evidence, tuple[str, ...], str]  # clause, evidence, details, advice
ID_CHARS = 40  # of a request's id


def describe(cause: Cause, seen: Observation, shares: Shares) -> Description:
    """The clause, evidence, details and advice of a cause, as in ``CauseFound``."""
    return _DESCRIBE[cause](seen, shares)


def _batch(seen: Observation, shares: Shares) -> Description:
    cap = seen.cap
    waiting = f.count(seen.waiting)
    words = f"batch limit {f.count(cap)} reached, {waiting} waiting"
    evidence: Numbers = {"batch_limit": cap, "running": seen.running, "waiting": seen.waiting,
                "queue_share": shares.queue, "throughput_gain": shares.gain}  # fmt: skip
    details = [
        f"batch: {f.count(seen.running)} of {f.count(cap)} running",
        f"queue: {waiting} waiting, {f.percent(shares.queue)} of the time of a request",
    ]
    if shares.gain is not None:
        more = f.percent(shares.gain - 1)
        details.append(f"steps: 1.5 times the batch would give about {more} more tok/s")
    return words, evidence, tuple(details), ""


def _kv(seen: Observation, shares: Shares) -> Description:
    window = seen.window
    usage = f.percent(seen.kv_usage)
    words = f"KV cache {usage} used, {f.count(seen.waiting)} waiting"
    details = [f"KV cache: {usage} used"]
    evidence: Numbers = {
        "kv_usage": seen.kv_usage, "waiting": seen.waiting, "queue_share": shares.queue,
        "preemptions": None, "recomputed_share": None,
    }  # fmt: skip
    if window is not None:
        evidence |= {"preemptions": window.preempted, "recomputed_share": window.recomputed}
        if window.preempted:
            again = f.percent(window.recomputed)
            words = f"KV cache full, about {again} of the prompt tokens are recomputed"
            details.append(
                f"preempted: {f.count(window.preempted)} in {f.span(window.seconds)}, "
                f"about {again} of the prompt tokens computed again"
            )
    details.append(f"queue: {f.count(seen.waiting)} waiting")
    return words, evidence, tuple(details), "shorter prompts or answers, more GPU memory"


def _prefill(seen: Observation, shares: Shares) -> Description:
    window = seen.window
    assert window is not None
    share = window.parts.prefill / max(1e-9, window.parts.busy)
    words = f"prefill takes {f.percent(share)} of step time"
    rate = window.prefill_tokens / window.seconds
    evidence: Numbers = {"prefill_share": share, "prefill_tokens_per_s": rate,
                "step_median_s": window.median_s, "step_longest_s": window.longest_s}  # fmt: skip
    details = (
        f"prompt tokens: {f.rate(rate)}/s computed",
        f"steps: median {f.latency(window.median_s)}, longest {f.latency(window.longest_s)}",
    )
    advice = "shorter prompts, prefix caching, or separate prefill engines"
    return words, evidence, details, advice


def _budget(seen: Observation, shares: Shares) -> Description:
    budget = seen.number(TOKEN_BUDGETS)
    words = f"token budget {f.count(budget)} is too small"
    evidence: Numbers = {"token_budget": budget, "at_budget_share": shares.at_budget,
                "fixed_share": shares.fixed, "waiting": seen.waiting}  # fmt: skip
    details = (
        f"steps at the budget: {f.percent(shares.at_budget)} of step time",
        f"of these, {f.percent(shares.fixed)} is a fixed cost of each step, for any budget",
    )
    return words, evidence, details, ""


def _decode(seen: Observation, shares: Shares) -> Description:
    window, fitted = seen.window, seen.fitted
    assert window is not None
    mean_s = window.parts.busy / len(window.steps)
    words = "decode takes the steps: memory bandwidth"
    share = window.parts.decode / max(1e-9, window.parts.busy)
    evidence: Numbers = {
        "decode_share": share, "step_mean_s": mean_s, "running": seen.running,
        "step_fixed_s": None, "step_per_request_s": None,
    }  # fmt: skip
    details = [f"steps: {f.latency(mean_s)} at {f.count(seen.running)} running"]
    if fitted is not None:
        evidence |= {
            "step_fixed_s": fitted.fixed_s,
            "step_per_request_s": fitted.per_request_s,
        }
        details.append(
            f"of it {f.latency(fitted.fixed_s)} at any load, "
            f"{f.latency(fitted.per_request_s)} more for each request"
        )
    advice = "more GPUs, a smaller KV cache or model format (quantization), shorter contexts"
    return words, evidence, tuple(details), advice


def _host(seen: Observation, shares: Shares) -> Description:
    window = seen.window
    assert window is not None
    share = window.parts.host / max(1e-9, window.parts.busy)
    words = f"host-bound: the GPU waits for the engine's CPU in {f.percent(share)} of step time"
    each = window.parts.host / len(window.steps)
    evidence: Numbers = {
        "host_share": share,
        "host_gap_mean_s": each,
        "step_median_s": window.median_s,
    }
    details = (
        f"gap between two steps on the GPU: {f.latency(each)} of {f.latency(window.median_s)}",
    )
    advice = "a faster or less crowded CPU, CUDA graphs, asynchronous scheduling"
    return words, evidence, details, advice


def _front(seen: Observation, shares: Shares) -> Description:
    advice = "more API server processes (vLLM: --api-server-count), a less crowded CPU"
    found, client = seen.front_end, seen.client
    if found is not None:
        lag = found.arrival_s + found.output_s
        words = f"front end adds {f.latency(lag)} to each request"
        stamps: Numbers = {"arrival_lag_s": found.arrival_s, "output_lag_s": found.output_s,
                    "e2e_s": found.e2e_s, "n": found.n}  # fmt: skip
        details = (
            f"from the arrival at the server to the scheduler: {f.latency(found.arrival_s)}",
            f"from the end of a step to the client's socket: {f.latency(found.output_s)}",
        )
        return words, stamps, details, advice
    assert client is not None
    words = (
        f"front end: TTFT is {f.latency(client.ttft_s)} at the client, "
        f"{f.latency(client.engine_ttft_s)} in the engine"
    )
    evidence: Numbers = {"client_ttft_s": client.ttft_s, "engine_ttft_s": client.engine_ttft_s,
                "statistic": client.statistic}  # fmt: skip
    return words, evidence, (), advice


def _speculation(seen: Observation, shares: Shares) -> Description:
    window = seen.window
    assert window is not None
    rate = f.percent(window.acceptance)
    words = f"speculation does not pay: {rate} of the drafts accepted"
    evidence: Numbers = {"acceptance": window.acceptance, "draft_tokens": window.draft_tokens,
                "accepted_tokens": window.accepted_tokens, "speedup": shares.speedup}  # fmt: skip
    details = [f"drafts: {f.count(window.rejected_tokens)} tokens computed and rejected"]
    if shares.speedup is not None:
        details.append(f"tokens/s with drafts: about {shares.speedup:.2f} times those without")
    return words, evidence, tuple(details), ""


def _throttled(seen: Observation, shares: Shares) -> Description:
    reasons = sorted({word for gpu in seen.gpus for word in gpu.throttle or ()})
    clocks = [gpu.sm_clock_mhz for gpu in seen.gpus if gpu.sm_clock_mhz is not None]
    clock = min(clocks) if clocks else None
    slow = f"steps take {seen.slowdown:.2g}x as long as before" if seen.slowdown else ""
    parts = [*([", ".join(reasons)] if reasons else []), *([slow] if slow else [])]
    parts += [f"shared with {name}" for name in seen.foreign[:2]]
    words = "GPU slowed: " + ", ".join(parts or ["low clock"])
    hidden = bool(slow) and not reasons and not seen.foreign
    evidence: Numbers = {"slowdown": seen.slowdown, "throttle": ", ".join(reasons) or None,
                "sm_clock_mhz": clock, "sm_clock_highest_mhz": seen.sm_clock_highest,
                "other_processes": len(seen.foreign)}  # fmt: skip
    details = []
    if clock is not None and seen.sm_clock_highest:
        details.append(f"SM clock: {f.count(clock)} MHz of {f.count(seen.sm_clock_highest)} MHz")
    if hidden:
        details.append("no other process is visible; one in another container would not be")
    advice = "raise the power limit, cool the GPU, or end the other processes on it"
    return words, evidence, tuple(details), advice


def _client(seen: Observation, shares: Shares) -> Description:
    reasons = seen.client.bound if seen.client is not None else ()
    words = "the client is the limit" + (f": {f.clean(reasons[0], 80)}" if reasons else "")
    evidence: Numbers = {"reasons": "; ".join(f.clean(one, 80) for one in reasons)}
    return words, evidence, (), "send from another machine, or with more --workers"


def _long(seen: Observation, shares: Shares) -> Description:
    names = [f.clean(row.id, ID_CHARS) for row in shares.held]
    requests = "request holds" if len(names) == 1 else "requests hold"
    words = (
        f"{len(names)} long {requests} {f.percent(shares.held_share)} of the KV cache: "
        + ", ".join(names)
    )
    evidence: Numbers = {"requests": ", ".join(names), "held_share": shares.held_share,
                "kv_usage": seen.kv_usage, "waiting": seen.waiting}  # fmt: skip
    details = tuple(
        f"{f.clean(row.id, ID_CHARS)}: {f.count(row.kv_blocks)} blocks, "
        f"{f.count(row.prompt_tokens)} prompt and {f.count(row.generated_tokens)} output tokens"
        for row in shares.held
    )
    return words, evidence, details, "abort them if they are not needed: llmtop abort NAME ID"


def _unknown(seen: Observation, shares: Shares) -> Description:
    words = f"cannot tell: {f.count(seen.waiting)} waiting, and no limit is seen to be reached"
    if seen.waiting < 1:
        words = "cannot tell what limits it"
    evidence: Numbers = {
        "running": seen.running,
        "waiting": seen.waiting,
        "kv_usage": seen.kv_usage,
    }
    details = tuple(f"missing: {name}: {why}" for name, why in list(seen.missing.items())[:6])
    return words, evidence, details, ""


_DESCRIBE = {
    Cause.BATCH_LIMIT: _batch,
    Cause.KV_CACHE: _kv,
    Cause.PREFILL: _prefill,
    Cause.TOKEN_BUDGET: _budget,
    Cause.DECODE: _decode,
    Cause.HOST: _host,
    Cause.FRONT_END: _front,
    Cause.SPECULATION: _speculation,
    Cause.GPU_THROTTLED: _throttled,
    Cause.CLIENT: _client,
    Cause.LONG_REQUESTS: _long,
    Cause.UNKNOWN: _unknown,
}


def no_limits(seen: Observation, shares: Shares, found: frozenset[Cause]) -> tuple[str, ...]:
    """What is not the limit, one clause each, for a reader who suspects it.

    found: the causes that were found; they are left out. What is nearly full comes first.
    """
    clear, near = [], []
    if Cause.BATCH_LIMIT not in found and seen.cap:
        words = f"batch: {f.count(seen.running)} of {f.count(seen.cap)} running"
        if seen.running < CAP_NEAR * seen.cap:
            clear.append(words)
        elif shares.gain is not None:
            more = f.percent(max(0.0, shares.gain - 1))
            near.append(f"{words}, half as many more would add ~{more} tok/s")
    if not found & {Cause.KV_CACHE, Cause.LONG_REQUESTS} and seen.kv_usage is not None:
        words = f"KV cache: {f.percent(seen.kv_usage)} used"
        if seen.kv_usage < KV_NEAR:
            clear.append(words)
        else:
            near.append(f"{words}, nearly full, but not the cause now")
    window = seen.window
    if window is not None and window.parts.busy > 0:
        busy = window.parts.busy
        if Cause.PREFILL not in found:
            clear.append(f"prefill: {f.percent(window.parts.prefill / busy)} of step time")
        if Cause.HOST not in found and window.host_known:
            clear.append(f"host: {f.percent(window.parts.host / busy)} of step time")
    return (*near, *(f"{words}: not the limit" for words in clear))
