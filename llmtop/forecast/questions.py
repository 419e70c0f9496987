"""Questions to the simulated engine, and answers: expected figures, or the reason of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from llmtop.forecast.estimates import LEAST_LAUNCHES
from llmtop.forecast.figures import Limits
from llmtop.forecast.fit import Fit, ObservedRange
from llmtop.forecast.intervals import (
    DRAWS,
    Drawn,
    Interval,
    Peaks,
    order,
    run_draws,
    scaled,
)
from llmtop.forecast.load import FrontEnd, Load, Present, Settings
from llmtop.forecast.step_model import GRAPH_TOKENS
from llmtop.forecast.twin import Run, simulate

BEYOND = 1.25
"""A forecast is refused if a step has more than this many times the requests, tokens or context
that were seen in one step."""
LEAST_HORIZON_S, MOST_HORIZON_S = 20.0, 900.0
REQUESTS_LONG = 5  # horizon over the duration of a request
MOST_ERROR = 0.25
"""Largest accepted median error of a step; above it, a forecast would be a guess."""

LATE = 1.5
"""Ratio of slow and fast steps of the same content above which the engine lacks CPU time."""
BUSY_HOST = 0.2  # share of time in which the device waits, above which the host is busy


class Refusal(Struct, frozen=True):
    """The reason why a question has no answer, and how to get one."""

    reason: str
    remedy: str


class Question(Struct, frozen=True):
    """A question.

    load: of all ranks and replicas together. ranks: schedulers that share it now. replicas: equal
    engines that would share it. present: the requests in one rank; None for a steady state.
    horizon: simulated seconds; None for several times the duration of a request. warm: share of the
    horizon that is not measured.
    """

    settings: Settings
    load: Load
    limits: Limits = Limits()
    present: Present | None = None
    ranks: int = 1
    replicas: int = 1
    horizon: float | None = None
    warm: float = 0.25


class Answer(Struct, frozen=True):
    """An answer.

    expected: figures by name, with the rates of all ranks and replicas. refused: why there are
    none. on_the_edge: a small difference of the engine decides the goodput. drawn: the draws.
    """

    expected: Mapping[str, Interval]
    refused: Refusal | None = None
    on_the_edge: bool = False
    drawn: Drawn | None = None


def ask(
    fit: Fit,
    front_end: FrontEnd,
    question: Question,
    draws: int = DRAWS,
    run: Callable[..., Run] = simulate,
) -> Answer:
    """Answer a question, or refuse it. run: simulates one draw; may raise to cancel."""
    refusal = model_mismatch(fit)
    if refusal is not None:
        return Answer({}, refusal)
    parts = question.ranks * question.replicas
    found = run_draws(
        fit,
        front_end,
        question.settings,
        question.load.scaled(1.0 / parts),
        question.limits,
        question.present if question.replicas == 1 else None,
        horizon=question.horizon or horizon_of(fit, question.load.scaled(1.0 / parts)),
        warm=question.warm,
        draws=draws,
        run=run,
    )
    refusal = out_of_range(fit.seen, found.peaks)
    if refusal is not None:
        return Answer({}, refusal)
    expected = scaled(found.intervals(), parts)
    good = expected.get("goodput_per_s")
    return Answer(expected, None, good is not None and good.on_the_edge, found)


def horizon_of(fit: Fit, load: Load) -> float:
    """The simulated seconds: several times the duration of a request, so that the batch fills.

    The duration is estimated by Little's law, without the batch limit.
    """
    model, prompt, output = fit.model, load.prompt.mean, load.output.mean
    length = prompt + output / 2
    request_s = output * model.decode(1, length)
    for _ in range(8):
        streams = load.level if load.loop == "closed" else load.level * request_s
        streams = min(max(streams, 1.0), BEYOND * fit.seen.requests)
        request_s = output * model.decode(streams, streams * length)
        request_s += model.token_s * prompt * streams  # the prefills of the other requests
    return min(MOST_HORIZON_S, max(LEAST_HORIZON_S, REQUESTS_LONG * request_s))


def model_mismatch(fit: Fit) -> Refusal | None:
    """A refusal if the error of the fitted model is too large, else None."""
    if not fit.median_error > MOST_ERROR:
        return None
    reason = (
        f"the steps do not follow the model: its median error is {fit.median_error:.0%},"
        f" and the limit is {MOST_ERROR:.0%}"
    )
    equal = fit.equal_steps
    if equal is not None and equal.gap is not None and equal.gap > BUSY_HOST:
        return Refusal(
            f"{reason}; the device waited for the host in {equal.gap:.0%} of the time",
            "the host is busy: give the engine more CPU, or ask again when fewer programs run",
        )
    if equal is not None and equal.slow_s > LATE * equal.fast_s:
        return Refusal(
            f"{reason}; steps of the same content took {equal.fast_s * 1000:.0f} to"
            f" {equal.slow_s * 1000:.0f} ms, so the engine was delayed",
            "the machine is busy: give the engine more CPU, or ask again when fewer programs run",
        )
    return Refusal(
        reason, "measure instead: `llmtop compare` for one change, `llmtop tune` for several"
    )


def out_of_range(seen: ObservedRange, peaks: Peaks) -> Refusal | None:
    """A refusal if the simulated steps are too different from those that were seen, else None."""
    few = seen.large_launches is not None and seen.large_launches < LEAST_LAUNCHES
    if few and peaks.tokens > GRAPH_TOKENS:
        return Refusal(
            f"steps of up to {peaks.tokens:,} tokens would be needed; steps above {GRAPH_TOKENS}"
            f" are launched in another way, and {seen.large_launches} of them were seen",
            "send longer prompts, or several at once, for some seconds, then ask again",
        )
    for what, wanted, known in (
        ("requests in a step", peaks.requests, seen.requests),
        ("tokens in a step", peaks.tokens, seen.tokens),
        ("tokens of context in a step", peaks.context, seen.context),
    ):
        if known and wanted > BEYOND * known:
            return Refusal(
                f"up to {wanted:,} {what} would be needed, and {known:,} were seen",
                "run a load as high as the one in question for some seconds, then ask again",
            )
    return None


def claims(before: Answer, after: Answer) -> Mapping[str, str]:
    """The order of two answers by figure: "more", "less" or "no claim" (``after`` vs. before)."""
    if before.drawn is None or after.drawn is None:
        return {}
    found = {}
    for name in after.expected:
        one = order(before.drawn, after.drawn, name)
        if one is not None:
            more = "more" if one.ratio.value > 1 else "less"
            found[name] = more if one.claimed else "no claim"
    return found
