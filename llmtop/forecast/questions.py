"""A question to the twin, and its answer: expected figures, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from llmtop.forecast.estimates import LEAST_LAUNCHES
from llmtop.forecast.figures import Limits
from llmtop.forecast.fit import Fit, Seen
from llmtop.forecast.intervals import (
    DRAWS,
    Drawn,
    Interval,
    Peaks,
    drawn,
    order,
    scaled,
)
from llmtop.forecast.load import FrontEnd, Load, Present, Settings
from llmtop.forecast.step_model import GRAPH_TOKENS
from llmtop.forecast.twin import Run, simulate

BEYOND = 1.25
"""Of the requests, tokens or context of a step that were seen: further out nothing is claimed."""
LEAST_HORIZON_S, MOST_HORIZON_S = 20.0, 900.0
REQUESTS_LONG = 5
MOST_ERROR = 0.25
"""Of a step, the median: with more, figures would be guesses."""

LATE = 1.5
"""Steps of the same content take about the same time, unless the engine does not get its CPU."""
BUSY_HOST = 0.2  # of the time in which the device waits for its next step


class Refusal(Struct, frozen=True):
    """Why a question has no answer, and what to do to get one."""

    reason: str
    remedy: str


class Question(Struct, frozen=True):
    """What is asked. load: of the whole engine. ranks: schedulers that share it now. replicas:
    engines of this kind that would share it. present: of one rank; None: a load that has been
    running for a while. horizon: seconds that are looked ahead; None: several times as long as a
    request takes, 20 at least."""

    settings: Settings
    load: Load
    limits: Limits = Limits()
    present: Present | None = None
    ranks: int = 1
    replicas: int = 1
    horizon: float | None = None
    warm: float = 0.25


class Answer(Struct, frozen=True):
    """expected: figures by name, seconds and rates of the whole. refused: why there are none.
    on_the_edge: goodput that a small difference of the engine decides."""

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
    """Answer a question, or refuse it with the reason. run: makes one draw; may raise to end it."""
    refusal = unlike(fit)
    if refusal is not None:
        return Answer({}, refusal)
    parts = question.ranks * question.replicas
    found = drawn(
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
    refusal = beyond(fit.seen, found.peaks)
    if refusal is not None:
        return Answer({}, refusal)
    expected = scaled(found.intervals(), parts)
    good = expected.get("goodput_per_s")
    return Answer(expected, None, good is not None and good.on_the_edge, found)


def horizon_of(fit: Fit, load: Load) -> float:
    """Long enough for the batch to fill: several times as long as a request takes.

    By Little's law, with the batch limit left out.
    """
    model, prompt, output = fit.model, load.prompt.mean, load.output.mean
    length = prompt + output / 2
    request_s = output * model.decode(1, length)
    for _ in range(8):
        streams = load.level if load.loop == "closed" else load.level * request_s
        streams = min(max(streams, 1.0), BEYOND * fit.seen.requests)
        request_s = output * model.decode(streams, streams * length)
        request_s += model.token_s * prompt * streams  # the prefills of those beside it
    return min(MOST_HORIZON_S, max(LEAST_HORIZON_S, REQUESTS_LONG * request_s))


def unlike(fit: Fit) -> Refusal | None:
    """Whether the steps do not follow the model, so that nothing can be built on it."""
    if not fit.median_error > MOST_ERROR:
        return None
    reason = (
        f"the steps do not follow the model: its median error is {fit.median_error:.0%},"
        f" and the limit is {MOST_ERROR:.0%}"
    )
    same = fit.alike
    if same is not None and same.gap is not None and same.gap > BUSY_HOST:
        return Refusal(
            f"{reason}; the device waited for the host in {same.gap:.0%} of the time",
            "the host is busy: give the engine more CPU, or ask again when fewer programs run",
        )
    if same is not None and same.slow_s > LATE * same.fast_s:
        return Refusal(
            f"{reason}; steps of the same content took {same.fast_s * 1000:.0f} to"
            f" {same.slow_s * 1000:.0f} ms, so the engine was late",
            "the machine is busy: give the engine more CPU, or ask again when fewer programs run",
        )
    return Refusal(
        reason, "measure instead: `llmtop compare` for one change, `llmtop tune` for several"
    )


def beyond(seen: Seen, peaks: Peaks) -> Refusal | None:
    """Whether the answer would rest on steps unlike those that were seen."""
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
    """What may be said of the order of two answers: "more", "less" or "no claim", by figure."""
    if before.drawn is None or after.drawn is None:
        return {}
    found = {}
    for name in after.expected:
        one = order(before.drawn, after.drawn, name)
        if one is not None:
            more = "more" if one.ratio.value > 1 else "less"
            found[name] = more if one.claimed else "no claim"
    return found
