"""Estimates the coefficients of the model of step times, each from the steps that determine it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from msgspec import Struct, structs

from llmtop.engines.core.steps import Step
from llmtop.forecast.least_squares import Regression, regress
from llmtop.forecast.step_model import (
    AFTER_LAUNCH_S,
    GRAPH_TOKENS,
    StepModel,
    launched,
    stretches,
    tokens,
)

LEAST_DECODES = 100
LEAST_PREFILLS = 30
LEAST_LAUNCHES = 8
LAUNCH_SHOWS = 1.3
"""With overlapped launches, a decode step before a prefill takes so many times its own time."""
LEAST_FLOORS = 5
USUAL_FLOOR = 0.8  # floor_share if the steps do not show it
ONE_SIZE = 1.5  # ratio of batch sizes below which all batches have about the same size
LARGE_PREFILL = 8 * 16  # prompt tokens in a step from which the cost of a token is estimated
WEIGHT_READ_SHARE = 0.76
"""Share of base_s in which the weights are read (vLLM 0.26 on an H200). Arithmetic that is shorter
than that runs at the same time and adds nothing."""
WEIGHT_READ_RANGE = (0.6, 1.0)
WEIGHT_READ_SHARES = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
PAST_RIDGE, RIDGE_ROWS = 1.3, 200
"""At the ridge point arithmetic takes as long as the read of the weights. PAST_RIDGE: only batches
so many times larger show where it is. RIDGE_ROWS: steps that are used to find it."""
USUAL_WORTH = 0.03  # penalty on shares other than WEIGHT_READ_SHARE: the ridge is not sharp
NO_GAP_S = 2e-4  # a shorter host gap means that the next step was launched ahead
MOST_OTHER_S = 5e-3
MOST_ROWS = 1500  # of a regression; more rows add CPU time but no accuracy


class NotFitted(Exception):
    """Too few steps or requests for a forecast. reason: what is missing. remedy: how to get it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class _Triple(Struct, frozen=True):
    """A step with its neighbours. earlier: the step before ``before``, None at the edge."""

    earlier: Step | None
    before: Step
    step: Step
    after: Step


def _triples(steps: Sequence[Step]) -> list[_Triple]:
    found = []
    for run in stretches(steps):
        shifted: list[Step | None] = [None, *run]
        for earlier, before, step, after in zip(shifted, run, run[1:], run[2:], strict=False):
            found.append(_Triple(earlier, before, step, after))
    return found


def estimate(
    steps: Sequence[Step],
    context_s: float | None,
    weights_s: float | None = None,
    *,
    launches: bool = True,
) -> tuple[StepModel, Regression, list[float]]:
    """The model, the regression of its decode steps, and measured over modelled launch times.

    context_s, weights_s, launches: see ``fit``. Raises NotFitted for too few steps.
    """
    triples = _triples(steps)
    plain = [one.step for one in triples if _is_plain(one, launches=launches)]
    if len(plain) < LEAST_DECODES:
        raise NotFitted(
            f"only {len(plain)} steps without any prefill were seen, {LEAST_DECODES} are needed",
            "run a load below the batch limit for some seconds, then ask again",
        )
    prefills = sum(1 for step in steps if step.prefill_tokens)
    if prefills < LEAST_PREFILLS:
        raise NotFitted(
            f"only {prefills} steps with a prefill were seen, {LEAST_PREFILLS} are needed",
            "send new requests for some seconds, then ask again",
        )
    found = _refined(plain, triples, context_s or 0.0, None, launches=launches)
    if weights_s and not _shows_hidden(plain, found[0], weights_s):
        with_weights = _refined(plain, triples, context_s or 0.0, weights_s, launches=launches)
        if with_weights[0].base_s > weights_s:  # otherwise a step does not read all weights
            return with_weights
    return found


def _shows_hidden(plain: Sequence[Step], model: StepModel, weights_s: float) -> bool:
    """Whether the batch sizes vary enough to show how much the read of the weights hides."""
    sizes = sorted(map(tokens, plain))
    least, most = (sizes[int(share * len(sizes))] for share in (0.05, 0.95))
    return most > ONE_SIZE * least and model.token_s * least < weights_s


def _is_plain(one: _Triple, *, launches: bool) -> bool:
    """Whether no part of the step's time belongs to a prefill. The launch of a prefill is a part of
    the step before it, and its rest may be a part of the step after it."""
    beside = launches and (one.before.prefill_tokens or one.after.prefill_tokens)
    return not (one.step.prefill_tokens or beside)


def _refined(
    plain: Sequence[Step],
    triples: Sequence[_Triple],
    context_s: float,
    weights_s: float | None,
    *,
    launches: bool,
) -> tuple[StepModel, Regression, list[float]]:
    """Estimate the coefficients alternately, each with the others fixed: the cost of tokens from
    steps with prefills, that of requests from the others."""
    token_s, hidden_s = 0.0, weights_s or 0.0
    for last in (False, False, True):
        decode = _decode(plain, StepModel(0.0, 0.0, context_s, token_s, hidden_s))
        base, request = decode.coefficients
        model = StepModel(base, request, context_s, token_s, hidden_s)
        ratios: list[float] = []
        if launches:
            model, ratios = _launches(model, triples)
        if not last:
            model = _tokens(model, triples, weights_s)
            token_s = model.token_s
            hidden_s = weights_s or _hidden(plain, model)
    return model, decode, ratios


def _device(model: StepModel, step: Step) -> float:
    """The device's time for a step, including drafts."""
    return model.gpu(step.requests, tokens(step), step.context_tokens or 0)


def _decode(plain: Sequence[Step], known: StepModel) -> Regression:
    """Fit base_s and request_s. known: the other coefficients."""
    chosen = plain[:: max(1, len(plain) // MOST_ROWS)]
    rows = [(1.0, float(step.requests)) for step in chosen]
    values = [max(1e-5, s.duration_s - _device(known, s)) for s in chosen]
    found = regress(rows, values)
    sizes = [step.requests for step in chosen]
    one_size = max(sizes) == min(sizes)
    if found.coefficients[1] >= 0 and found.coefficients[0] > 0 and not one_size:
        return found
    # Batches of one size show no slope: use the median for all, with a small uncertainty.
    middle = median(values)
    wide = found.triangle[1][1] if len(found.triangle) > 1 else 0.0
    return Regression((middle, 0.0), ((0.02 * middle, 0.0), (0.0, min(abs(wide), 1e-5))))


def _launches(model: StepModel, triples: Sequence[_Triple]) -> tuple[StepModel, list[float]]:
    """Estimate how long launches block the engine, if it launches steps ahead: from its stamps,
    else from the duration of decode steps before prefills, which end late."""
    candidates = [one for one in triples if _may_end_late(one)]
    late = [(one.after, one.step.duration_s, _slowdown(model, one)) for one in candidates]
    stamped = [one for one in triples if one.step.prefill_tokens and launched(one.step) is not None]
    if len(stamped) >= LEAST_LAUNCHES:
        if not _overlaps(model, candidates, stamped):
            return model, []
        other = _other_host(model, candidates)
        measured = [(one.step, launched(one.step, other) or 0.0) for one in stamped]
        return _with_holds(model, measured, triples, other)
    if len(late) < LEAST_LAUNCHES:
        raise NotFitted(
            f"only {len(late)} launches of a prefill were seen, {LEAST_LAUNCHES} are needed",
            "send requests one after the other for some seconds (llmtop load -c 4), ask again",
        )
    if median(ratio for _, _, ratio in late) < LAUNCH_SHOWS:
        return model, []
    return _with_holds(model, [(step, seconds) for step, seconds, _ in late], triples, 0.0)


def _may_end_late(one: _Triple) -> bool:
    """Whether it is a decode step after another one and before a prefill, which may delay it."""
    prefills = one.before.prefill_tokens or one.step.prefill_tokens
    return not prefills and bool(one.after.prefill_tokens)


def _slowdown(model: StepModel, one: _Triple) -> float:
    """A step's measured time over its device time in the model."""
    return one.step.duration_s / _device(model, one.step)


def _overlaps(model: StepModel, candidates: Sequence[_Triple], stamped: Sequence[_Triple]) -> bool:
    """Whether a step is launched while the one before runs.

    A step then lasts at least as long as the launch of the next one. Without long launches, the
    host gaps decide: a device whose next step is launched ahead has none."""
    shares = []
    for one in candidates:
        launch_s = launched(one.after)
        own_s = one.step.duration_s / _slowdown(model, one)
        if launch_s is not None and launch_s > LAUNCH_SHOWS * own_s:
            shares.append(one.step.duration_s / launch_s)
    if len(shares) >= LEAST_LAUNCHES:
        return median(shares) > 1 / LAUNCH_SHOWS
    gaps = [one.step.host_gap_s for one in stamped if one.step.host_gap_s is not None]
    return bool(gaps) and median(gaps) < NO_GAP_S


def _other_host(model: StepModel, candidates: Sequence[_Triple]) -> float:
    """The time for which a launch blocks the engine beyond its stamps, seconds."""
    found = []
    for one in candidates:
        launch_s = launched(one.after)
        if launch_s is not None and _slowdown(model, one) > LAUNCH_SHOWS:
            found.append(one.step.duration_s - launch_s)
    return min(MOST_OTHER_S, max(0.0, median(found))) if len(found) >= LEAST_LAUNCHES else 0.0


def _with_holds(
    model: StepModel, timed: Sequence[tuple[Step, float]], triples: Sequence[_Triple], other: float
) -> tuple[StepModel, list[float]]:
    """The model with its launch times, and measured over modelled times of the launches."""
    large = [(step.requests, seconds) for step, seconds in timed if tokens(step) > GRAPH_TOKENS]
    small = [seconds for step, seconds in timed if tokens(step) <= GRAPH_TOKENS]
    hold, per_request = 0.0, 0.0
    if large:
        hold = median(seconds for _, seconds in large)
        if len(large) >= LEAST_LAUNCHES and max(large)[0] > 1.5 * max(1, min(large)[0]):
            line = regress([(1.0, float(n)) for n, _ in large], [seconds for _, seconds in large])
            if line.coefficients[0] > 0 and line.coefficients[1] > 0:
                hold, per_request = line.coefficients
    short = median(small) if len(small) > 2 else hold / 2
    extended = structs.replace(
        model,
        overlapped=True,
        small_launch_s=short,
        launch_s=hold or short,
        launch_request_s=per_request,
        other_host_s=other,
    )
    extended = structs.replace(extended, floor_share=_floor(extended, triples))
    ratios = [
        s / extended.hold(step.requests, tokens(step), step.prefill_tokens) for step, s in timed
    ]
    return extended, ratios


def _floor(model: StepModel, triples: Sequence[_Triple]) -> float:
    """floor_share: the thread's time for a step without prompt tokens, over its device time.

    Without stamps, steps show it whose prefill ended during a long launch before them.
    """
    shares = []
    for one in triples:
        launch_s = launched(one.step, model.other_host_s)
        if launch_s is not None and not one.step.prefill_tokens:
            shares.append(launch_s / (model.base_s + model.request_s * one.step.requests))
    if len(shares) >= LEAST_FLOORS:
        return min(1.0, median(shares))
    for one in triples:
        before, step, after = one.before, one.step, one.after
        if before.prefill_tokens or after.prefill_tokens or not step.prefill_tokens:
            continue
        alone = _device(model, before)
        if before.duration_s > 2 * alone and tokens(step) < 2 * GRAPH_TOKENS:
            own = model.base_s + model.request_s * step.requests
            shares.append(step.duration_s / own)
    if len(shares) < LEAST_FLOORS:
        return USUAL_FLOOR
    return min(1.0, sorted(shares)[len(shares) // 4])  # low: some prefills were not finished


def _tokens(model: StepModel, triples: Sequence[_Triple], weights_s: float | None) -> StepModel:
    """Fit token_s and hidden_s to the steps with prefills whose end no launch hides."""
    rows = [row for one in triples if (row := _prefill_row(model, one)) is not None]
    large = [row for row in rows if row[0] >= LARGE_PREFILL]
    if len(large) < LEAST_LAUNCHES:
        raise NotFitted(
            "too few steps with large prefills were seen to estimate the cost of a prompt token",
            "send some prompts of several hundred tokens, then ask again",
        )
    hidden = model.hidden_s or WEIGHT_READ_SHARE * model.base_s
    top = max(count for count, _ in large)
    heavy = [(count, extra) for count, extra in large if count > top / 4]
    small = [(count, extra) for count, extra in large if extra > 0.2 * model.base_s]
    if not weights_s and len(small) >= 20 and top > 3 * min(count for count, _ in small):
        line = regress([(count, -1.0) for count, _ in small], [e for _, e in small])
        low, high = (share * model.base_s for share in WEIGHT_READ_RANGE)
        hidden = min(max(line.coefficients[1], low), high)
    token_s = max(1e-9, median((extra + hidden) / count for count, extra in heavy))
    return structs.replace(model, token_s=token_s, hidden_s=hidden)


def _hidden(plain: Sequence[Step], model: StepModel) -> float:
    """hidden_s: how much arithmetic the read of the weights hides. Decode steps show it if their
    batches are past the ridge point, from which on they take longer."""
    if max(map(tokens, plain)) * model.token_s < PAST_RIDGE * model.hidden_s:
        return model.hidden_s
    chosen = plain[:: max(1, len(plain) // RIDGE_ROWS)]
    return min(
        (share * model.base_s for share in WEIGHT_READ_SHARES),
        key=lambda hidden: (
            _misfit(chosen, structs.replace(model, hidden_s=hidden)) / len(chosen)
            + USUAL_WORTH * abs(hidden / model.base_s - WEIGHT_READ_SHARE)
        ),
    )


def _misfit(plain: Sequence[Step], model: StepModel) -> float:
    known = structs.replace(model, base_s=0.0, request_s=0.0)
    base, request = _decode(plain, known).coefficients
    fitted = structs.replace(model, base_s=base, request_s=request)
    return sum(abs(math.log(step.duration_s / _device(fitted, step))) for step in plain)


def _prefill_row(model: StepModel, one: _Triple) -> tuple[float, float] | None:
    """(tokens of the step, seconds that they added); None if a launch hides the time."""
    step, before, after = one.step, one.before, one.after
    if not step.prefill_tokens:
        return None
    seconds = step.duration_s
    if model.overlapped:
        if step.duration_s < 1.15 * _held(model, after):
            return None
        if not before.prefill_tokens:
            if one.earlier is None or one.earlier.prefill_tokens:
                return None
            # The device started it at the end of the step before, not when that was reported.
            seconds += before.duration_s
            seconds -= _device(model, before)
        if before.prefill_tokens and tokens(before) < 1500:
            return None
        if seconds < 1.1 * (_held(model, step) + AFTER_LAUNCH_S):
            return None
    read_s = _device(structs.replace(model, token_s=0.0), step)
    return float(tokens(step)), seconds - read_s


def _held(model: StepModel, step: Step) -> float:
    """How long the launch of a step blocked the engine: from its stamps, else from the model."""
    stamped = launched(step, model.other_host_s)
    if stamped is not None:
        return stamped
    return model.hold(step.requests, tokens(step), step.prefill_tokens)
