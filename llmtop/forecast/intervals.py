"""Figures with intervals: many runs, each of which might be another session of the same engine.

The residuals of steps alone cover 57 % of what is measured, with uncertain coefficients 68 %, with
factors between sessions 92 % (measured, docs/explanation/forecast.md).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from msgspec import Struct

from llmtop.forecast.figures import Figures, Limits, figures
from llmtop.forecast.fit import Fit
from llmtop.forecast.load import FrontEnd, Load, Present, Settings, steady
from llmtop.forecast.twin import Engine, Noise, Run, simulate

GPU_SPREAD = 0.03  # standard deviations of the logarithm, between sessions of one engine
LAUNCH_SPREAD = 0.18
FRONT_END_SPREAD = 0.25
DRAWS = 20
MODEL_ERROR = {"ttft": 0.20, "tpot": 0.10, "itl_": 0.10}
"""By so much more a figure may be off than the draws differ: what the model leaves out. Fitted to
the points of ``bench/forecast/validate.py``; rates: 1.5 %."""
RATE_ERROR = 0.015
CLAIM = 0.25
"""Below such a difference an order is not claimed: two arms 20 % apart were ranked wrongly."""
EDGE = 0.5


class Interval(Struct, frozen=True):
    """The middle of the draws, and the range that leaves out a twentieth of them at either end."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """So many times as much."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    @property
    def on_the_edge(self) -> bool:
        """Whether it may as well be half as much: a small change of the engine decides."""
        return self.high - self.low > EDGE * max(abs(self.value), 1e-9)


class Peaks(Struct, frozen=True):
    """The most of any step, in the middle of the draws, to be held against what was seen."""

    requests: int
    tokens: int
    context: int


class Drawn(Struct, frozen=True):
    """All draws of one setting under one load, in the order of their seeds."""

    draws: tuple[Figures, ...]
    peaks: Peaks

    def interval(self, name: str) -> Interval | None:
        """Of one figure; None where most draws have none."""
        found = interval([getattr(one, name) for one in self.draws])
        if found is None or name in ("refused", "waiting"):
            return found
        error = MODEL_ERROR.get(name[:4], RATE_ERROR)
        return Interval(found.value, found.low / (1 + error), found.high * (1 + error))

    def intervals(self) -> Mapping[str, Interval]:
        """Of every figure that there is."""
        found = {name: self.interval(name) for name in Figures.__struct_fields__}
        return {name: value for name, value in found.items() if value is not None}


def interval(values: Sequence[float | None]) -> Interval | None:
    """Of values, some of which may be missing."""
    known = sorted(value for value in values if value is not None)
    if not known or len(known) < len(values) / 2:
        return None
    cut = len(known) // 20
    return Interval(median(known), known[cut], known[-1 - cut])


def engine(fit: Fit, front_end: FrontEnd, rng: random.Random, *, lag: bool = True) -> Engine:
    """The engine as another session might have it."""
    return Engine(
        model=fit.drawn(rng, gpu=GPU_SPREAD, launch=LAUNCH_SPREAD),
        front_end=front_end.slower(rng.lognormvariate(0.0, FRONT_END_SPREAD)),
        noise=Noise(fit.residuals, fit.prefill_residuals, fit.holds),
        emitted=fit.emitted,
        drafted=fit.drafted,
        lag=lag,
    )


def drawn(
    fit: Fit,
    front_end: FrontEnd,
    settings: Settings,
    load: Load,
    limits: Limits,
    present: Present | None = None,
    *,
    horizon: float = 20.0,
    warm: float = 0.25,
    draws: int = DRAWS,
    run: Callable[..., Run] = simulate,
) -> Drawn:
    """Run the draws. Draw n of two settings has the same arrivals and the same session."""
    found = []
    peaks = []
    for number in range(draws):
        rng = random.Random(1000 + number)
        made = engine(fit, front_end, rng)
        begin = present if present is not None else steady(load, settings, rng)
        one = run(
            made, settings, _as_it_may_be(load, rng), begin, number, horizon=horizon, warm=warm
        )
        found.append(figures(one, limits))
        peaks.append((one.peak_requests, one.peak_tokens, one.peak_context))
    return Drawn(tuple(found), Peaks(*(round(median(most)) for most in zip(*peaks, strict=True))))


def _as_it_may_be(load: Load, rng: random.Random) -> Load:
    """A rate that was counted is known as well as its count: by Poisson's law."""
    if load.loop == "closed" or not load.counted:
        return load
    return load.scaled(rng.lognormvariate(0.0, 1.0 / math.sqrt(load.counted)))


class Order(Struct, frozen=True):
    """B over A of one figure. claimed: the difference is large enough to say which is larger."""

    ratio: Interval
    claimed: bool


def order(a: Drawn, b: Drawn, name: str) -> Order | None:
    """Compare two settings draw by draw; None where a figure is missing."""
    ratios: list[float | None] = []
    for one, other in zip(a.draws, b.draws, strict=True):
        ratios.append(_ratio(getattr(one, name), getattr(other, name)))
    found = interval(ratios)
    if found is None:
        return None
    apart = found.value > 1 + CLAIM or found.value < 1 / (1 + CLAIM)
    return Order(found, apart and (found.low > 1 or found.high < 1))


def _ratio(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return None
    if first <= 0:
        return math.inf if second > 0 else 1.0
    return second / first


def scaled(found: Mapping[str, Interval], replicas: int) -> Mapping[str, Interval]:
    """The rates of several replicas that share a load; latencies are those of each."""
    rates = ("output_tokens_per_s", "requests_per_s", "goodput_per_s", "waiting")
    return {n: v.times(replicas) if n in rates else v for n, v in found.items()}
