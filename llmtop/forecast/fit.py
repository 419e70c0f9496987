"""Fits the model of step times to the steps of a running engine."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from llmtop.engines.core.steps import Step
from llmtop.forecast.estimates import LEAST_LAUNCHES, NotFitted, estimate
from llmtop.forecast.least_squares import Regression
from llmtop.forecast.step_model import GRAPH_TOKENS, StepModel, predicted, tokens

__all__ = ["Fit", "NotFitted", "ObservedRange", "fit"]

LONGEST_STEP_S = 30.0  # longer steps are not used
MOST_HOLDS = 2000
NO_DRAFT_STEPS = 50  # consecutive decode steps without a draft show that speculation is off
OFTEN_DRAFTS = 0.2  # share of decode steps with drafts above which such a sequence is not chance
NEWEST_STEPS = 400  # steps from which drafted and accepted tokens are estimated
LEAST_EQUAL_STEPS = 20
BLOCKS = 5  # every fifth block of steps is held out


class ObservedRange(Struct, frozen=True):
    """What the steps of a fit cover.

    steps, seconds: in all. requests, tokens, context: largest values of one step. prefills,
    launches: numbers. drafts: a step had draft tokens. large_launches: number of launches of steps
    above GRAPH_TOKENS; None for an engine whose launches do not overlap.
    """

    steps: int
    seconds: float
    requests: int
    tokens: int
    context: int
    prefills: int
    launches: int
    drafts: bool = False
    large_launches: int | None = None


class EqualSteps(Struct, frozen=True):
    """The spread of steps with the same content.

    fast_s, slow_s: 10th and 90th percentile of their durations, seconds. gap: share of the time in
    which the device waited for the host, 0..1; None: not known.
    """

    fast_s: float
    slow_s: float
    gap: float | None


class Fit(Struct, frozen=True):
    """A fitted model and its uncertainty.

    decode: the regression of base_s and request_s. median_error, p90_error: relative errors of the
    held-out steps. residuals, prefill_residuals: measured over predicted times, for drawing. holds:
    the same for launches, in order of time. seen: what the steps cover. emitted: output tokens per
    request and decode step. drafted: draft tokens per request and decode step. equal_steps: None
    without enough steps of the same content.
    """

    model: StepModel
    decode: Regression
    median_error: float
    p90_error: float
    residuals: tuple[float, ...]
    prefill_residuals: tuple[float, ...]
    holds: tuple[float, ...]
    seen: ObservedRange
    emitted: float = 1.0
    drafted: float = 0.0
    equal_steps: EqualSteps | None = None

    def draw(self, rng: random.Random, *, gpu: float, launch: float) -> StepModel:
        """Draw a model of another session of the same engine.

        gpu, launch: standard deviations of the logarithms of the factors between sessions.
        """
        base, request = self.decode.draw(rng)[:2]
        gpu_factor, launch_factor = rng.lognormvariate(0.0, gpu), rng.lognormvariate(0.0, launch)
        model = self.model
        return StepModel(
            base_s=max(base, 0.2 * model.base_s) * gpu_factor,
            request_s=max(request, 0.0) * gpu_factor,
            context_s=model.context_s * gpu_factor,
            token_s=model.token_s * gpu_factor,
            hidden_s=model.hidden_s * gpu_factor,
            overlapped=model.overlapped,
            small_launch_s=model.small_launch_s * launch_factor,
            launch_s=model.launch_s * launch_factor,
            launch_request_s=model.launch_request_s * launch_factor,
            floor_share=model.floor_share,
            other_host_s=model.other_host_s,
        )


def fit(
    steps: Sequence[Step],
    context_s: float | None = None,
    weights_s: float | None = None,
    *,
    launches: bool = True,
) -> Fit:
    """Fit the model to all steps. Its error is that of a second fit without every fifth block.

    context_s: seconds per token of context, bytes over bandwidth. It is not fitted, because
    requests and context grow together under one load. None: not known; context then counts as a
    part of each request. weights_s: seconds to read the weights, bytes over bandwidth. It is used
    if the batches do not show how much arithmetic that time hides. launches: False for an engine
    that does not launch steps ahead; then no launches are needed. Raises NotFitted for too few
    steps.
    """
    usable = _since_draft_change([s for s in steps if 0 < s.duration_s < LONGEST_STEP_S])
    model, decode, ratios = estimate(usable, context_s, weights_s, launches=launches)
    blocks = _blocks(usable)
    trained = [step for n, block in enumerate(blocks) if n % BLOCKS != BLOCKS - 1 for step in block]
    try:
        trained_model = estimate(trained, context_s, weights_s, launches=launches)[0]
    except NotFitted:
        trained_model = model
    held_out = [
        step for n, block in enumerate(blocks) if n % BLOCKS == BLOCKS - 1 for step in block
    ]
    errors = sorted(
        abs(one.seconds / one.step.duration_s - 1.0) for one in predicted(trained_model, held_out)
    )
    decodes, prefills = _residuals(model, usable)
    emitted, drafted = _drafting(usable)
    return Fit(
        model=model,
        decode=decode,
        median_error=errors[len(errors) // 2] if errors else math.nan,
        p90_error=errors[int(0.9 * len(errors))] if errors else math.nan,
        residuals=decodes,
        prefill_residuals=prefills,
        holds=_holds(ratios),
        seen=_seen(usable, len(ratios), overlapped=model.overlapped),
        emitted=emitted,
        drafted=drafted,
        equal_steps=_equal_steps(usable),
    )


def _equal_steps(steps: Sequence[Step]) -> EqualSteps | None:
    """The spread of decode steps with the most frequent number of requests."""
    plain = [step for step in steps if not step.prefill_tokens]
    sizes = Counter(step.requests for step in plain)
    if not sizes:
        return None
    usual, count = sizes.most_common(1)[0]
    if count < LEAST_EQUAL_STEPS:
        return None
    durations = sorted(step.duration_s for step in plain if step.requests == usual)
    gaps = [(s.host_gap_s, s.duration_s) for s in steps if s.host_gap_s is not None]
    total = sum(duration for _, duration in gaps)
    gap = sum(waited for waited, _ in gaps) / total if total > 0 else None
    return EqualSteps(durations[int(0.1 * count)], durations[int(0.9 * count)], gap)


def _blocks(steps: Sequence[Step], count: int = 20) -> list[Sequence[Step]]:
    size = max(1, math.ceil(len(steps) / count))
    return [steps[i : i + size] for i in range(0, len(steps), size)]


def _residuals(
    model: StepModel, steps: Sequence[Step]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measured over predicted times of steps without and with prefills; the medians are about 1."""
    plain: list[float] = []
    prefill: list[float] = []
    for one in predicted(model, steps):
        if one.held and one.step.prefill_tokens:
            continue  # its time is that of a launch
        ratio = min(4.0, max(0.25, one.step.duration_s / one.seconds))
        (prefill if one.step.prefill_tokens else plain).append(ratio)
    return _thinned(plain), _thinned(prefill)


def _thinned(values: list[float], most: int = 500) -> tuple[float, ...]:
    ordered = sorted(values) or [1.0]
    if len(ordered) <= most:
        return tuple(ordered)
    return tuple(ordered[int((i + 0.5) * len(ordered) / most)] for i in range(most))


def _holds(ratios: Sequence[float]) -> tuple[float, ...]:
    if len(ratios) < LEAST_LAUNCHES:
        return (1.0,)
    return tuple(min(2.5, max(0.4, ratio)) for ratio in ratios[-MOST_HOLDS:])


def _seen(steps: Sequence[Step], launches: int, *, overlapped: bool) -> ObservedRange:
    large = sum(1 for s in steps if s.prefill_tokens and tokens(s) > GRAPH_TOKENS)
    return ObservedRange(
        steps=len(steps),
        seconds=sum(step.duration_s for step in steps),
        requests=max(step.requests for step in steps),
        tokens=max(map(tokens, steps)),
        context=max(step.context_tokens or 0 for step in steps),
        prefills=sum(1 for step in steps if step.prefill_tokens),
        launches=launches,
        drafts=any(step.draft_tokens for step in steps),
        large_launches=large if overlapped else None,
    )


def _since_draft_change(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps since speculation was last switched on or off: it can change at run time."""
    plain = 0  # consecutive decode steps without a draft
    end = 0  # index after the last step with a draft
    begin = 0  # index of the first draft after the last long sequence without one
    for index, step in enumerate(steps):
        if step.draft_tokens:
            begin = index if plain >= NO_DRAFT_STEPS else begin
            plain, end = 0, index + 1
        elif step.requests > (step.prefills or 0):
            plain += 1
    if plain >= NO_DRAFT_STEPS and _share_with_drafts(steps[begin:end]) > OFTEN_DRAFTS:
        return steps[end:]
    return steps[begin:] if _share_with_drafts(steps[begin:]) > OFTEN_DRAFTS else steps


def _share_with_drafts(steps: Sequence[Step]) -> float:
    decodes = [step for step in steps if step.requests > (step.prefills or 0)]
    return sum(bool(step.draft_tokens) for step in decodes) / max(1, len(decodes))


def _drafting(steps: Sequence[Step]) -> tuple[float, float]:
    """Output tokens and draft tokens per request and decode step; 1 and 0 without speculation."""
    newest = [s for s in steps[-NEWEST_STEPS:] if s.requests > (s.prefills or 0)]
    if not any(step.draft_tokens for step in newest):
        return 1.0, 0.0
    decoding = sum(step.requests - (step.prefills or 0) for step in newest)
    accepted = sum(step.accepted_tokens or 0 for step in newest)
    return 1.0 + accepted / decoding, sum(step.draft_tokens or 0 for step in newest) / decoding
