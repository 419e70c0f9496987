"""Figures with intervals, from many runs with redrawn coefficients and sessions of the engine.

Intervals from the residuals of steps alone cover 57 % of the measured values. With uncertain
coefficients they cover 68 %, with factors between sessions 92 % (measured,
docs/explanation/forecast.md).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from msgspec import Struct

from llmtop.forecast.figures import Figures, Limits, figures
from llmtop.forecast.fit import Fit
from llmtop.forecast.load import FrontEnd, Load, Present, Settings, steady_state
from llmtop.forecast.twin import Engine, Noise, Run, simulate

# Standard deviations of the logarithm of the factors between sessions of one engine.
GPU_SPREAD = 0.03
LAUNCH_SPREAD = 0.18
FRONT_END_SPREAD = 0.25
DRAWS = 20
MODEL_ERROR = {"ttft": 0.20, "tpot": 0.10, "itl_": 0.10}
"""Relative error of the model itself, by which intervals are widened. Chosen with the points of
``bench/forecast/validate.py``. RATE_ERROR is that of rates."""
RATE_ERROR = 0.015
CLAIM = 0.25
"""Smallest relative difference for which an order of two settings is claimed. Two settings 20 %
apart were ranked wrongly."""
EDGE = 0.5  # width of an interval over its value, above which goodput is "on the edge"


class Interval(Struct, frozen=True):
    """The median of the draws, and their range without the lowest and the highest 5 %."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """The interval multiplied by a factor."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    @property
    def on_the_edge(self) -> bool:
        """Whether it is so wide that a small change of the engine decides the value."""
        return self.high - self.low > EDGE * max(abs(self.value), 1e-9)


class Peaks(Struct, frozen=True):
    """The largest values of any step, as medians over the draws."""

    requests: int
    tokens: int
    context: int


class Drawn(Struct, frozen=True):
    """All draws for one setting under one load, in the order of their seeds."""

    draws: tuple[Figures, ...]
    peaks: Peaks

    def interval(self, name: str) -> Interval | None:
        """The interval of a figure, widened by the model's error; None if most draws have none."""
        found = interval([getattr(one, name) for one in self.draws])
        if found is None or name in ("refused", "waiting"):
            return found
        error = MODEL_ERROR.get(name[:4], RATE_ERROR)
        return Interval(found.value, found.low / (1 + error), found.high * (1 + error))

    def intervals(self) -> Mapping[str, Interval]:
        """The intervals of all known figures by name."""
        found = {name: self.interval(name) for name in Figures.__struct_fields__}
        return {name: value for name, value in found.items() if value is not None}


def interval(values: Sequence[float | None]) -> Interval | None:
    """The interval of the known values; None if more than half are missing."""
    known = sorted(value for value in values if value is not None)
    if not known or len(known) < len(values) / 2:
        return None
    cut = len(known) // 20
    return Interval(median(known), known[cut], known[-1 - cut])


def engine(fit: Fit, front_end: FrontEnd, rng: random.Random, *, lag: bool = True) -> Engine:
    """Draw an engine as in another session. lag: see ``Engine``."""
    return Engine(
        model=fit.draw(rng, gpu=GPU_SPREAD, launch=LAUNCH_SPREAD),
        front_end=front_end.scaled(rng.lognormvariate(0.0, FRONT_END_SPREAD)),
        noise=Noise(fit.residuals, fit.prefill_residuals, fit.holds),
        emitted=fit.emitted,
        drafted=fit.drafted,
        lag=lag,
    )


def run_draws(
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
    """Simulate all draws. Draw n of two settings has the same arrivals and the same session.

    present: the requests in the engine, None for a steady state. horizon: seconds per run. warm:
    share of the horizon that is not measured. run: simulates one draw.
    """
    found = []
    peaks = []
    for number in range(draws):
        rng = random.Random(1000 + number)
        drawn = engine(fit, front_end, rng)
        begin = present if present is not None else steady_state(load, settings, rng)
        one = run(drawn, settings, _resampled(load, rng), begin, number, horizon=horizon, warm=warm)
        found.append(figures(one, limits))
        peaks.append((one.peak_requests, one.peak_tokens, one.peak_context))
    return Drawn(tuple(found), Peaks(*(round(median(most)) for most in zip(*peaks, strict=True))))


def _resampled(load: Load, rng: random.Random) -> Load:
    """The load with a redrawn rate. The relative error of a rate from n arrivals is 1/sqrt(n).

    That is the error of a Poisson process.
    """
    if load.loop == "closed" or not load.counted:
        return load
    return load.scaled(rng.lognormvariate(0.0, 1.0 / math.sqrt(load.counted)))


class Order(Struct, frozen=True):
    """The ratio B over A of one figure. claimed: the difference is large enough for an order."""

    ratio: Interval
    claimed: bool


def order(a: Drawn, b: Drawn, name: str) -> Order | None:
    """Compare one figure of two settings draw by draw; None if most draws have no ratio."""
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
    """The figures of several replicas together: rates are summed, latencies are those of one."""
    rates = ("output_tokens_per_s", "requests_per_s", "goodput_per_s", "waiting")
    return {n: v.times(replicas) if n in rates else v for n, v in found.items()}
