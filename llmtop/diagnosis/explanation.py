"""Explains the state of an engine by its causes, for ``why``, the screens and JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.diagnosis.cause_rules import Shares, front_end_requests, shares_of
from llmtop.diagnosis.cause_words import describe, no_limits
from llmtop.diagnosis.causes import Cause, CauseFound, Explanation, Knob
from llmtop.diagnosis.headroom import headroom_of
from llmtop.diagnosis.knobs import knob_for
from llmtop.diagnosis.observation import Observation
from llmtop.diagnosis.state_rules import MARGINAL_NEAR, MOST_QUEUED, Level, LoadState
from llmtop.diagnosis.step_moments import marginal
from llmtop.values import replace
from llmtop.wording import format as f

LEAST_SHARE = 0.15  # share of the time of requests from which a cause is named
# With headroom no limit is reached. Causes that cost speed at any load are named from these shares.
AT_ANY_LOAD = {
    Cause.HOST: 0.35,
    Cause.FRONT_END: 0.35,
    Cause.SPECULATION: 0.15,
    Cause.GPU_THROTTLED: 0.2,
    Cause.LONG_REQUESTS: 0.3,
}
# Share of the time of requests from which decode or prefill explains a full engine without a limit.
MOST_OF_IT = 0.5
LAG_S = 0.1  # a shorter delay in the front end is no cause, whatever its share
# Share of a request's time in the front end from which the state is near knee, or saturated. On one
# H200 with 448 streams each request waited 9 s there, while the engine core showed headroom.
FRONT_NEAR, FRONT_FULL = 0.35, 0.5
# Numbers that the causes need: only these are reported as missing.
NEEDED = (
    "steps",
    "latencies",
    "requests",
    "host_gap_s",
    "arrival_lag",
    "kv_free_blocks",
    "prefills",
)
LEAST_STEPS = 20  # in the window, for reliable shares


def explain(seen: Observation) -> Explanation:
    """The explanation of what was observed, with at least one cause, the largest first.

    Without a cause it is "none", with the headroom, or "unknown", with what is missing.
    """
    finding = seen.finding
    if finding.level is Level.HUNG:
        return _explanation(seen, finding, (_hung(seen),))
    if finding.level is Level.UNKNOWN:
        return _explanation(seen, finding, (_found(Cause.UNKNOWN, None, seen, Shares({}, 0, {})),))
    client = seen.client is not None and bool(seen.client.bound)
    if finding.idle and not client:
        return _explanation(seen, finding, (_none(seen),))
    shares = shares_of(seen)
    chosen = [(s, c) for c, s in shares.by_cause.items() if s >= _least_share(c, seen)]
    chosen = [(s, c) for s, c in chosen if c is not Cause.FRONT_END or _lag(seen) >= LAG_S]
    chosen.sort(key=lambda pair: (-pair[0], pair[1].value))
    causes = [_found(cause, share, seen, shares) for share, cause in chosen]
    if client:
        position = 0 if finding.level <= Level.NEAR_KNEE else len(causes)
        causes.insert(position, _found(Cause.CLIENT, None, seen, shares))
    if not causes:
        causes = [_remainder(seen, shares)]
    return _explanation(seen, finding, tuple(causes), shares)


def _least_share(cause: Cause, seen: Observation) -> float:
    """The share from which a cause is named in this state; above 1 for never."""
    level = seen.finding.level
    if level is Level.HEADROOM:
        return AT_ANY_LOAD.get(cause, 2.0)
    if cause in (Cause.PREFILL, Cause.DECODE) and not _full_steps(seen):
        return 2.0  # every step has prefill and decode. More load still gives more tokens.
    return LEAST_SHARE


def _full_steps(seen: Observation) -> bool:
    """Whether step times grow so much with the load that more load gives few more tokens."""
    window = seen.window
    grows = marginal(window.steps, seen.fitted) if window is not None else None
    return seen.finding.level >= Level.SATURATED if grows is None else grows >= MARGINAL_NEAR


def _lag(seen: Observation) -> float:
    """The seconds of a request in the front end, from the engine's or the client's times."""
    found, client = seen.front_end, seen.client
    if found is not None:
        return found.arrival_s + found.output_s
    if client is None or client.ttft_s is None or client.engine_ttft_s is None:
        return 0.0
    return client.ttft_s - client.engine_ttft_s


def _remainder(seen: Observation, shares: Shares) -> CauseFound:
    """The cause to report when none has a large share."""
    level = seen.finding.level
    if level is Level.HEADROOM:
        return _none(seen)
    waits = max(shares.waits, key=lambda cause: shares.waits[cause], default=None)
    if waits is not None and waits is not Cause.UNKNOWN and shares.queue > 0.02:
        return _found(waits, shares.queue * shares.waits[waits], seen, shares)
    if level is Level.NEAR_KNEE:
        return _none(seen)
    share, largest = max(
        (shares.by_cause.get(one, 0.0), one) for one in (Cause.DECODE, Cause.PREFILL)
    )
    if share >= MOST_OF_IT:
        return _found(largest, share, seen, shares)
    return _found(Cause.UNKNOWN, None, seen, shares)


def _found(cause: Cause, share: float | None, seen: Observation, shares: Shares) -> CauseFound:
    words, evidence, details, advice = describe(cause, seen, shares)
    knob = knob_for(cause, seen, shares)
    if share is not None:
        share = min(1.0, max(0.0, share))
    return CauseFound(cause, share, words, evidence, details, knob, advice)


def _none(seen: Observation) -> CauseFound:
    if seen.finding.idle:
        return CauseFound(Cause.NONE, None, "no load", {"running": 0, "waiting": 0})
    room = headroom_of(seen)
    evidence = {
        "headroom": room.factor,
        "knee_running": room.running,
        "first_limit": room.first,
        "running": seen.running,
    }
    if room.factor is None or room.running is None:
        words = "no limit is reached"
        return CauseFound(
            Cause.NONE, None, words, evidence, ("how much more load it can carry is unknown",)
        )
    first = {"steps": "the steps' time", "batch": "the batch limit", "kv": "the KV cache"}
    words = f"about {room.factor:.1f}x of this load until the knee (~{room.running:.0f} running)"
    if room.factor >= 99:
        words = "room for more than 100x of this load"
    if room.factor <= 1.05:
        words = "at the knee: no room for more load"
    detail = f"reached first: {first[room.first or 'steps']}"
    return CauseFound(Cause.NONE, None, words, evidence, (detail,))


def _hung(seen: Observation) -> CauseFound:
    sample = seen.sample
    unchanged_s = sample.unchanged_s if sample is not None else None
    evidence = {"running": seen.running, "waiting": seen.waiting, "unchanged_s": unchanged_s}
    words = seen.finding.reasons[0]
    advice = "read its log, then restart it"
    return CauseFound(Cause.HUNG, 1.0, words, evidence, (), None, advice)


def _explanation(
    seen: Observation,
    finding: LoadState,
    causes: tuple[CauseFound, ...],
    shares: Shares | None = None,
) -> Explanation:
    window = seen.window
    missing = {name: why for name, why in seen.missing.items() if name in NEEDED}
    if window is not None and len(window.steps) < LEAST_STEPS:
        missing["more steps"] = f"the window has only {len(window.steps)} steps"
    if window is not None and seen.fitted is None:
        missing["step fit"] = "the steps are too similar to estimate the cost of load"
    limits = (
        no_limits(seen, shares or Shares({}, 0.0, {}), frozenset(one.cause for one in causes))
        if not finding.idle
        else ()
    )
    return Explanation(
        time=seen.time,
        window_s=window.seconds if window is not None else _samples_s(seen),
        level=max(finding.level, _front_level(seen, causes[0])),
        reasons=finding.reasons,
        causes=causes,
        steps=len(window.steps) if window is not None else 0,
        missing=missing,
        not_limits=limits,
        idle=finding.idle,
    )


def _front_level(seen: Observation, main: CauseFound) -> Level:
    """The state of the front end, if it is the main cause. The front end is the server before the
    engine core. The numbers of the engine core do not show its queue."""
    queued = front_end_requests(seen)
    if main.cause is not Cause.FRONT_END or main.share is None or queued < 2:
        return Level.UNKNOWN
    if main.share >= FRONT_FULL and queued > MOST_QUEUED:
        return Level.SATURATED
    return Level.NEAR_KNEE if main.share >= FRONT_NEAR else Level.UNKNOWN


def _samples_s(seen: Observation) -> float:
    recent = list(seen.moments)[-5:]
    return recent[-1].time - recent[0].time if len(recent) > 1 else 0.0


def state_reasons(found: Explanation) -> tuple[str, ...]:
    """The reasons for the state line: the main cause, then the reasons of the state rules. Under
    overload the queue comes first."""
    main = found.main
    first, *rest = found.reasons
    if main.cause in (Cause.UNKNOWN, Cause.HUNG) or found.idle:
        return found.reasons
    if main.cause is Cause.NONE:
        return (main.words, *found.reasons) if found.level is Level.HEADROOM else found.reasons
    if main.cause in (Cause.BATCH_LIMIT, Cause.KV_CACHE):
        return found.reasons  # the state rule already names the limit and the queue
    if found.level >= Level.OVERLOADED:
        return (first, main.words, *rest)
    return (main.words, first, *rest)


def with_reasons(finding: LoadState, found: Explanation) -> LoadState:
    """The finding with the reasons of its explanation, so that all screens show the same reasons.

    Its level is worse than the finding's where the front end is full.
    """
    level = max(finding.level, found.level)
    return replace(finding, level=level, reasons=state_reasons(found))


def change_words(found: Explanation) -> str:
    """The change proposed for the main cause: ``max_num_seqs 128 -> 192: TTFT ~1.3s``; or ""."""
    knob = found.main.knob
    if knob is None:
        return ""
    words = f"{knob.option} {f.option(knob.before)} -> {f.option(knob.after)}"
    effects = effect_words(knob.expected)
    return f"{words}: {', '.join(effects)}" if effects else words


def effect_words(expected: object) -> list[str]:
    """The known values of ``Knob.expected``, each in a few words."""
    assert isinstance(expected, dict)
    out = []
    for name, value in expected.items():
        if name in _EFFECTS:
            out.append(_EFFECTS[name](value))
    return out


_EFFECTS = {
    "output_tokens_per_s": lambda value: f"~{f.rate(value)} tok/s",
    "ttft_s": lambda value: f"mean TTFT ~{f.latency(value)}",
    "ttft_p50_s": lambda value: f"TTFT p50 ~{f.latency(value)}",
    "tpot_p50_s": lambda value: f"TPOT p50 ~{f.latency(value)}",
    "tpot_s": lambda value: f"TPOT ~{f.latency(value)}",
    "longest_step_s": lambda value: f"longest step ~{f.latency(value)}",
    "prefill_gain": lambda value: f"prefill ~{value:.1f}x as fast",
}


def with_knobs(found: Explanation, knobs: Sequence[Knob]) -> Explanation:
    """The explanation with ``knobs``, which have forecasts, in place of its own knobs for the same
    changes, which have estimates."""
    if not knobs:
        return found
    by_change = {(knob.option, knob.before, knob.after): knob for knob in knobs}

    def with_forecast(cause: CauseFound) -> CauseFound:
        own = cause.knob
        knob = by_change.get((own.option, own.before, own.after)) if own is not None else None
        return replace(cause, knob=knob) if knob is not None else cause

    return replace(found, causes=tuple(map(with_forecast, found.causes)))
