"""Estimates the coefficients of the model of a step's time, each from the steps that show it."""

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
"""A decode step before a prefill takes so much longer than others where launches overlap."""
LEAST_FLOORS = 5
USUAL_FLOOR = 0.8
ONE_SIZE = 1.5
LARGE_PREFILL = 8 * 16  # prompt tokens in a step that say something of what a token costs
WEIGHT_READ_SHARE = 0.76
"""Of a step's least time, the time to read the weights (vLLM 0.26 on an H200). Arithmetic that is
shorter runs at the same time and adds nothing."""
WEIGHT_READ_RANGE = (0.6, 1.0)
WEIGHT_READ_SHARES = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
PAST_RIDGE, RIDGE_ROWS = 1.3, 200
"""The ridge point is the batch at which arithmetic takes as long as the read of the weights. Only a
batch so many times larger shows where it is. Steps that are compared for it."""
USUAL_WORTH = 0.03  # misfit that the usual share is worth: the ridge is not sharp
NO_GAP_S = 2e-4  # a device that waits no longer for its next step has it already
MOST_OTHER_S = 5e-3
MOST_ROWS = 1500  # of a regression; more add time and no knowledge


class NotFitted(Exception):
    """Too little was seen. reason: what is missing; remedy: how to get an answer."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class _Triple(Struct, frozen=True):
    """A step with its neighbours. ahead: of the step before the one before, None at the edge."""

    ahead: Step | None
    before: Step
    step: Step
    after: Step


def _triples(steps: Sequence[Step]) -> list[_Triple]:
    found = []
    for run in stretches(steps):
        earlier: list[Step | None] = [None, *run]
        for ahead, before, step, after in zip(earlier, run, run[1:], run[2:], strict=False):
            found.append(_Triple(ahead, before, step, after))
    return found


def estimate(
    steps: Sequence[Step],
    context_s: float | None,
    weights_s: float | None = None,
    *,
    launches: bool = True,
) -> tuple[StepModel, Regression, list[float]]:
    """The model, the regression of its decode steps, and launches over what the model has of them.

    weights_s, launches: see ``fit``. NotFitted when too little was seen.
    """
    triples = _triples(steps)
    plain = [one.step for one in triples if _is_plain(one, launches=launches)]
    if len(plain) < LEAST_DECODES:
        raise NotFitted(
            f"only {len(plain)} steps without any prefill were seen, {LEAST_DECODES} are needed",
            "let the engine answer requests below its limit for some seconds, then ask again",
        )
    prefills = sum(1 for step in steps if step.prefill_tokens)
    if prefills < LEAST_PREFILLS:
        raise NotFitted(
            f"only {prefills} steps with a prefill were seen, {LEAST_PREFILLS} are needed",
            "send new requests for some seconds, then ask again",
        )
    found = _refined(plain, triples, context_s or 0.0, None, launches=launches)
    if weights_s and not _shows_hidden(plain, found[0], weights_s):
        given = _refined(plain, triples, context_s or 0.0, weights_s, launches=launches)
        if given[0].base_s > weights_s:  # else not all of them are read in a step
            return given
    return found


def _shows_hidden(plain: Sequence[Step], model: StepModel, weights_s: float) -> bool:
    """Whether batches show what hides behind the reading of the weights: small ones and large."""
    sizes = sorted(map(tokens, plain))
    least, most = (sizes[int(share * len(sizes))] for share in (0.05, 0.95))
    return most > ONE_SIZE * least and model.token_s * least < weights_s


def _is_plain(one: _Triple, *, launches: bool) -> bool:
    """A step whose time no prefill is a part of. The launch of a prefill is a part of the step
    before it, and what is left of one may be a part of the step behind it."""
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
    """Each coefficient given the others, in turns: what tokens cost shows in steps with prefills,
    what requests cost in those without."""
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
    """The device's time for a step, drafts included."""
    return model.gpu(step.requests, tokens(step), step.context_tokens or 0)


def _decode(plain: Sequence[Step], known: StepModel) -> Regression:
    """base_s and request_s; ``known`` has the rest."""
    chosen = plain[:: max(1, len(plain) // MOST_ROWS)]
    rows = [(1.0, float(step.requests)) for step in chosen]
    values = [max(1e-5, s.duration_s - _device(known, s)) for s in chosen]
    found = regress(rows, values)
    sizes = [step.requests for step in chosen]
    one_size = max(sizes) == min(sizes)
    if found.coefficients[1] >= 0 and found.coefficients[0] > 0 and not one_size:
        return found
    # No slope shows where the batch was of one size, so each step costs what they all cost.
    middle = median(values)
    wide = found.triangle[1][1] if len(found.triangle) > 1 else 0.0
    return Regression((middle, 0.0), ((0.02 * middle, 0.0), (0.0, min(abs(wide), 1e-5))))


def _launches(model: StepModel, triples: Sequence[_Triple]) -> tuple[StepModel, list[float]]:
    """How long launches hold the engine: by its own stamps, else by the decode steps before
    prefills, which end late. Of an engine that does not launch ahead both are left out."""
    shown = [one for one in triples if _ends_late(one)]
    late = [(one.after, one.step.duration_s, _over(model, one)) for one in shown]
    stamped = [one for one in triples if one.step.prefill_tokens and launched(one.step) is not None]
    if len(stamped) >= LEAST_LAUNCHES:
        if not _ahead(model, shown, stamped):
            return model, []
        other = _other_host(model, shown)
        seen = [(one.step, launched(one.step, other) or 0.0) for one in stamped]
        return _with_holds(model, seen, triples, other)
    if len(late) < LEAST_LAUNCHES:
        raise NotFitted(
            f"only {len(late)} launches of a prefill were seen, {LEAST_LAUNCHES} are needed",
            "send requests one after the other for some seconds (llmtop load -c 4), ask again",
        )
    if median(ratio for _, _, ratio in late) < LAUNCH_SHOWS:
        return model, []
    return _with_holds(model, [(step, took) for step, took, _ in late], triples, 0.0)


def _ends_late(one: _Triple) -> bool:
    """A decode step behind another, whose end the launch of a prefill may delay."""
    prefills = one.before.prefill_tokens or one.step.prefill_tokens
    return not prefills and bool(one.after.prefill_tokens)


def _over(model: StepModel, one: _Triple) -> float:
    """A step's time over what the model has."""
    return one.step.duration_s / _device(model, one.step)


def _ahead(model: StepModel, shown: Sequence[_Triple], stamped: Sequence[_Triple]) -> bool:
    """Whether a step is launched while the one before runs.

    It shows where the launch takes longer than that step. Where none does, the device is never
    without work, or it is at each launch."""
    told = []
    for one in shown:
        took = launched(one.after)
        if took is not None and took > LAUNCH_SHOWS * one.step.duration_s / _over(model, one):
            told.append(one.step.duration_s / took)
    if len(told) >= LEAST_LAUNCHES:
        return median(told) > 1 / LAUNCH_SHOWS
    gaps = [one.step.host_gap_s for one in stamped if one.step.host_gap_s is not None]
    return bool(gaps) and median(gaps) < NO_GAP_S


def _other_host(model: StepModel, shown: Sequence[_Triple]) -> float:
    """What a launch holds the engine longer than its own stamps say."""
    found = []
    for one in shown:
        took = launched(one.after)
        if took is not None and _over(model, one) > LAUNCH_SHOWS:
            found.append(one.step.duration_s - took)
    return min(MOST_OTHER_S, max(0.0, median(found))) if len(found) >= LEAST_LAUNCHES else 0.0


def _with_holds(
    model: StepModel, seen: Sequence[tuple[Step, float]], triples: Sequence[_Triple], other: float
) -> tuple[StepModel, list[float]]:
    """The model with how long launches hold the engine, and each launch over what it has."""
    large = [(step.requests, took) for step, took in seen if tokens(step) > GRAPH_TOKENS]
    small = [took for step, took in seen if tokens(step) <= GRAPH_TOKENS]
    hold, each = 0.0, 0.0
    if large:
        hold = median(took for _, took in large)
        if len(large) >= LEAST_LAUNCHES and max(large)[0] > 1.5 * max(1, min(large)[0]):
            line = regress([(1.0, float(n)) for n, _ in large], [took for _, took in large])
            if line.coefficients[0] > 0 and line.coefficients[1] > 0:
                hold, each = line.coefficients
    short = median(small) if len(small) > 2 else hold / 2
    made = structs.replace(
        model,
        overlapped=True,
        small_launch_s=short,
        launch_s=hold or short,
        launch_request_s=each,
        other_host_s=other,
    )
    made = structs.replace(made, floor_share=_floor(made, triples))
    ratios = [
        took / made.hold(step.requests, tokens(step), step.prefill_tokens) for step, took in seen
    ]
    return made, ratios


def _floor(model: StepModel, triples: Sequence[_Triple]) -> float:
    """What the engine's thread needs for a step without prompt tokens, over its device time.

    It shows behind a launch that took so long that the prefill is done already.
    """
    shares = []
    for one in triples:
        took = launched(one.step, model.other_host_s)
        if took is not None and not one.step.prefill_tokens:
            shares.append(took / (model.base_s + model.request_s * one.step.requests))
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
    return min(1.0, sorted(shares)[len(shares) // 4])  # in some the prefill is not quite done


def _tokens(model: StepModel, triples: Sequence[_Triple], weights_s: float | None) -> StepModel:
    """What a token costs, from the steps with prefills whose end no launch hides."""
    rows = [row for one in triples if (row := _prefill_row(model, one)) is not None]
    large = [row for row in rows if row[0] >= LARGE_PREFILL]
    if len(large) < LEAST_LAUNCHES:
        raise NotFitted(
            "too few steps with large prefills were seen to know what a prompt token costs",
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
    each = max(1e-9, median((extra + hidden) / count for count, extra in heavy))
    return structs.replace(model, token_s=each, hidden_s=hidden)


def _hidden(plain: Sequence[Step], model: StepModel) -> float:
    """How much of the arithmetic hides behind the weights: it shows where batches are so large that
    decode steps cost more from one size on."""
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
    """(prompt tokens, seconds that they added), None where a launch hides it."""
    step, before, after = one.step, one.before, one.after
    if not step.prefill_tokens:
        return None
    seconds = step.duration_s
    if model.overlapped:
        if step.duration_s < 1.15 * _held(model, after):
            return None
        if not before.prefill_tokens:
            if one.ahead is None or one.ahead.prefill_tokens:
                return None
            # The device began with it when the step before was done, not when that was told.
            seconds += before.duration_s
            seconds -= _device(model, before)
        if before.prefill_tokens and tokens(before) < 1500:
            return None
        if seconds < 1.1 * (_held(model, step) + AFTER_LAUNCH_S):
            return None
    read_s = _device(structs.replace(model, token_s=0.0), step)
    return float(tokens(step)), seconds - read_s


def _held(model: StepModel, step: Step) -> float:
    """For how long the launch of a step held the engine: as it was stamped, else by the model."""
    stamped = launched(step, model.other_host_s)
    if stamped is not None:
        return stamped
    return model.hold(step.requests, tokens(step), step.prefill_tokens)
