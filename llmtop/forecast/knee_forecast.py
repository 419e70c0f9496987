"""Forecasts the number of streams from which throughput stops growing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from msgspec import Struct

from llmtop.forecast.figures import Limits, figures
from llmtop.forecast.fit import Fit
from llmtop.forecast.intervals import Interval, engine, interval
from llmtop.forecast.load import FrontEnd, Load, Settings, steady_state
from llmtop.forecast.questions import BEYOND, Refusal, out_of_range
from llmtop.forecast.twin import Run, simulate
from llmtop.loadgen.experiments.knee import Point, find

DRAWS = 6
STEPS_AN_OCTAVE = 3
LEAST_S, MOST_S = 3.0, 300.0


class CurvePoint(Struct, frozen=True):
    """The expected output tokens per second at a number of streams."""

    streams: int
    output_tokens_per_s: Interval


class KneeForecast(Struct, frozen=True):
    """A forecast of the knee.

    streams: the knee, None if it is not known; ``refused`` then has the reason. curve: the expected
    throughput at several numbers of streams.
    """

    streams: Interval | None
    curve: tuple[CurvePoint, ...]
    refused: Refusal | None = None


def knee(
    fit: Fit,
    front_end: FrontEnd,
    settings: Settings,
    load: Load,
    top: int,
    draws: int = DRAWS,
    run: Callable[..., Run] = simulate,
) -> KneeForecast:
    """The knee of a closed loop with the lengths of ``load``, as ``llmtop saturate`` defines it.

    top: the highest number of streams. Fewer are simulated if the fit has seen small steps only.
    run: simulates one draw; may raise to cancel.
    """
    most = min(top, int(BEYOND * fit.seen.requests))
    levels = _levels(max(1, most))
    found: list[float | None] = []
    rates: dict[int, list[float | None]] = {level: [] for level in levels}
    open_end, refusal = 0, None
    for draw in range(draws):
        drawn = engine(fit, front_end, random.Random(2000 + draw))
        points = []
        for level in levels:
            closed = Load("closed", level, load.prompt, load.output, load.cached)
            horizon = _horizon(fit, closed, level)
            begin = steady_state(closed, settings, random.Random(draw))
            simulated = run(drawn, settings, closed, begin, draw, horizon=horizon)
            rate = figures(simulated, Limits()).output_tokens_per_s
            rates[level].append(rate)
            if rate:
                points.append(Point(level, rate, 0.01))
        bend = find(points)
        if bend is not None:
            open_end += bend.open_end
            found.append(_interpolated(points, bend.level, bend.best))
    curve = tuple(
        CurvePoint(level, one) for level in levels if (one := interval(rates[level])) is not None
    )
    if open_end > draws / 2 and most < top:
        refusal = Refusal(
            f"throughput still grows at {most:,} streams, and no more than {fit.seen.requests:,}"
            " requests in a step were seen",
            "run a higher load for some seconds, then ask again",
        )
        return KneeForecast(None, curve, refusal)
    return KneeForecast(interval(found), curve, None)


def _interpolated(points: list[Point], level: int, best: float) -> float:
    """The number of streams at which the curve reaches SHARE of the best, between two levels."""
    from llmtop.loadgen.experiments.knee import SHARE

    goal = SHARE * best
    below = [p for p in points if p.level < level and p.throughput < goal]
    at = next((p for p in points if p.level == level), None)
    if not below or at is None or at.throughput <= below[-1].throughput:
        return float(level)
    low = below[-1]
    share = (goal - low.throughput) / (at.throughput - low.throughput)
    return low.level + min(1.0, max(0.0, share)) * (level - low.level)


def _levels(most: int) -> list[int]:
    count = math.ceil(math.log2(most) * STEPS_AN_OCTAVE) if most > 1 else 0
    found = {min(most, round(2 ** (step / STEPS_AN_OCTAVE))) for step in range(count + 1)}
    return sorted(found | {most})


def _horizon(fit: Fit, load: Load, level: int) -> float:
    step = fit.model.decode(level, level * (load.prompt.mean + load.output.mean / 2))
    prefill = fit.model.token_s * load.prompt.mean * level
    return min(MOST_S, max(LEAST_S, 3 * (load.output.mean * step + prefill)))


__all__ = ["CurvePoint", "KneeForecast", "knee", "out_of_range"]
