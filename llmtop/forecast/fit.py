"""Fits the model of a step's time to the steps of a running engine."""

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

__all__ = ["Fit", "NotFitted", "Seen", "fit"]

LONGEST_STEP_S = 30.0
MOST_HOLDS = 2000
ROW = 50  # decode steps without a draft: speculation is off
OFTEN = 0.2  # of the decode steps draft: such a row is no chance
NEWEST = 400  # steps that show how many drafts there are, and how many are right
LEAST_ALIKE = 20
BLOCKS = 5  # of which every fifth is held out


class Seen(Struct, frozen=True):
    """The largest of each that the fit has seen in one step, and how often it saw what matters.

    large_launches: of steps above GRAPH_TOKENS; None where launches do not matter.
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


class Alike(Struct, frozen=True):
    """Steps of the same content: seconds that a fast one took (the tenth percentile) and a slow one
    (the ninetieth). gap: share of the time in which the device waited for the host; None: not
    known."""

    fast_s: float
    slow_s: float
    gap: float | None


class Fit(Struct, frozen=True):
    """A model with how sure it is.

    median_error, p90_error: of steps that were held out, as shares. residuals, prefill_residuals:
    measured over predicted, which a forecast draws from. holds: the same of launches, in the
    order in which they came. emitted: output tokens of a request in a decode step. drafted: draft
    tokens that it computes besides. alike: None where no steps had the same content.
    """

    model: StepModel
    decode: Regression
    median_error: float
    p90_error: float
    residuals: tuple[float, ...]
    prefill_residuals: tuple[float, ...]
    holds: tuple[float, ...]
    seen: Seen
    emitted: float = 1.0
    drafted: float = 0.0
    alike: Alike | None = None

    def drawn(self, rng: random.Random, *, gpu: float, launch: float) -> StepModel:
        """The model of another session: coefficients and factors are drawn once for it."""
        base, request = self.decode.drawn(rng)[:2]
        speed, held = rng.lognormvariate(0.0, gpu), rng.lognormvariate(0.0, launch)
        model = self.model
        return StepModel(
            base_s=max(base, 0.2 * model.base_s) * speed,
            request_s=max(request, 0.0) * speed,
            context_s=model.context_s * speed,
            token_s=model.token_s * speed,
            hidden_s=model.hidden_s * speed,
            overlapped=model.overlapped,
            small_launch_s=model.small_launch_s * held,
            launch_s=model.launch_s * held,
            launch_request_s=model.launch_request_s * held,
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
    """Fit to all steps; the error is that of a fit without every fifth stretch of them.

    context_s: seconds for each token of context, bytes over bandwidth. Requests and context grow
    together in one kind of load, so it is better given than fitted. None: it is not known, and
    context counts as a part of each request. weights_s: seconds to read the weights, bytes over
    bandwidth; it counts where batches do not show how much hides behind that. launches: False of an
    engine that is known to launch no step ahead, so that none need be seen. NotFitted when too
    little was seen.
    """
    usable = _as_now([step for step in steps if 0 < step.duration_s < LONGEST_STEP_S])
    model, decode, ratios = estimate(usable, context_s, weights_s, launches=launches)
    blocks = _blocks(usable)
    trained = [step for n, block in enumerate(blocks) if n % BLOCKS != BLOCKS - 1 for step in block]
    try:
        judge = estimate(trained, context_s, weights_s, launches=launches)[0]
    except NotFitted:
        judge = model
    held_out = [
        step for n, block in enumerate(blocks) if n % BLOCKS == BLOCKS - 1 for step in block
    ]
    errors = sorted(
        abs(one.seconds / one.step.duration_s - 1.0) for one in predicted(judge, held_out)
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
        alike=_alike(usable),
    )


def _alike(steps: Sequence[Step]) -> Alike | None:
    """Of steps that only generate, those of the most frequent number of requests."""
    plain = [step for step in steps if not step.prefill_tokens]
    sizes = Counter(step.requests for step in plain)
    if not sizes:
        return None
    usual, count = sizes.most_common(1)[0]
    if count < LEAST_ALIKE:
        return None
    took = sorted(step.duration_s for step in plain if step.requests == usual)
    gaps = [(s.host_gap_s, s.duration_s) for s in steps if s.host_gap_s is not None]
    whole = sum(duration for _, duration in gaps)
    gap = sum(waited for waited, _ in gaps) / whole if whole > 0 else None
    return Alike(took[int(0.1 * count)], took[int(0.9 * count)], gap)


def _blocks(steps: Sequence[Step], count: int = 20) -> list[Sequence[Step]]:
    size = max(1, math.ceil(len(steps) / count))
    return [steps[i : i + size] for i in range(0, len(steps), size)]


def _residuals(
    model: StepModel, steps: Sequence[Step]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measured over predicted, of steps without and with prefills; each about 1 in the middle."""
    plain: list[float] = []
    prefill: list[float] = []
    for one in predicted(model, steps):
        if one.held and one.step.prefill_tokens:
            continue  # it says how long a launch took
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


def _seen(steps: Sequence[Step], launches: int, *, overlapped: bool) -> Seen:
    large = sum(1 for s in steps if s.prefill_tokens and tokens(s) > GRAPH_TOKENS)
    return Seen(
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


def _as_now(steps: Sequence[Step]) -> Sequence[Step]:
    """The newest steps that draft as the engine drafts now: the option changes while it runs."""
    plain = last = since = 0  # steps without a draft: in a row, before that; where a row ended
    for place, step in enumerate(steps):
        if step.draft_tokens:
            since = place if plain >= ROW else since
            plain, last = 0, place + 1
        elif step.requests > (step.prefills or 0):
            plain += 1
    if plain >= ROW and _share_drafting(steps[since:last]) > OFTEN:
        return steps[last:]
    return steps[since:] if _share_drafting(steps[since:]) > OFTEN else steps


def _share_drafting(steps: Sequence[Step]) -> float:
    decodes = [step for step in steps if step.requests > (step.prefills or 0)]
    return sum(bool(step.draft_tokens) for step in decodes) / max(1, len(decodes))


def _drafting(steps: Sequence[Step]) -> tuple[float, float]:
    """Output tokens of a request in a decode step, and the draft tokens that it computes besides;
    1 and 0 without speculation."""
    newest = [s for s in steps[-NEWEST:] if s.requests > (s.prefills or 0)]
    if not any(step.draft_tokens for step in newest):
        return 1.0, 0.0
    decoding = sum(step.requests - (step.prefills or 0) for step in newest)
    accepted = sum(step.accepted_tokens or 0 for step in newest)
    return 1.0 + accepted / decoding, sum(step.draft_tokens or 0 for step in newest) / decoding
