"""The ratio of the goodput of two settings, with a confidence interval.

Settings that were measured in the same round had the same arrivals. So they are compared in pairs.
The ratio is the ratio of the means. Its interval follows from Fieller's theorem (E. C. Fieller,
J. R. Stat. Soc. B 16, 1954). A ratio of logarithms would give too much weight to a run with almost
no goodput. Three pairs give a poor estimate of the variance, so the variance over all settings that
are still in the search is used as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance

from msgspec import Struct

from llmtop.loadgen.statistics.student import t_quantile

CONFIDENCE = 0.90
"""Of the interval. Each end is then a one-sided limit of 95 %, as in an equivalence test."""
SMOOTH_PER_S = 0.5  # requests per second added to both sides, so that a goodput of 0 has a ratio

Round = Mapping[int, float]
"""Goodput in requests per second, by the index of the candidate."""


class Ratio(Struct, frozen=True):
    """The goodput of one setting over that of another, with its interval from low to high.

    None: that end of the interval is not known. high is also None where the goodput of the other
    setting may be 0. pairs: rounds that measured both. confidence: of the interval, 0..1.
    """

    value: float
    low: float | None
    high: float | None
    pairs: int
    confidence: float = CONFIDENCE


class Spread(Struct, frozen=True):
    """The residual variance of a run, without the effects of its settings and its round. freedom:
    its degrees of freedom."""

    variance: float
    freedom: int


def spread(rounds: Sequence[Round], members: Sequence[int]) -> Spread:
    """The residual variance in the rounds that measured all ``members`` (two-way analysis of
    variance: settings and rounds). 0 degrees of freedom where fewer than two rounds did."""
    whole = [one for one in rounds if all(i in one for i in members)]
    if len(whole) < 2 or len(members) < 2:
        return Spread(0.0, 0)
    middle = {i: fmean(one[i] for one in whole) for i in members}
    every = fmean(middle.values())
    residual = 0.0
    for one in whole:
        shift = fmean(one[i] for i in members) - every
        residual += sum((one[i] - middle[i] - shift) ** 2 for i in members)
    freedom = (len(whole) - 1) * (len(members) - 1)
    return Spread(residual / freedom, freedom)


def ratio(
    rounds: Sequence[Round],
    index: int,
    other: int,
    common: Spread | None = None,
    confidence: float = CONFIDENCE,
) -> Ratio:
    """The goodput of candidate ``index`` over that of ``other``, from rounds that measured both.

    common: the residual variance over all settings. It gets at most the weight of the variance of
    the pairs.
    """
    pairs = [
        (one[other] + SMOOTH_PER_S, one[index] + SMOOTH_PER_S)
        for one in rounds
        if index in one and other in one
    ]
    n = len(pairs)
    if not n:
        return Ratio(1.0, None, None, 0, confidence)
    a, b = fmean(first for first, _ in pairs), fmean(second for _, second in pairs)
    if n < 2:
        return Ratio(b / a, None, None, n, confidence)
    own = n - 1
    more = min(common.freedom, own) if common is not None else 0
    share = own / (own + more)
    pooled = (1 - share) * common.variance if common is not None else 0.0
    scale = t_quantile(1 - (1 - confidence) / 2, own + more) ** 2 / n
    var_a = share * variance([first for first, _ in pairs]) + pooled
    var_b = share * variance([second for _, second in pairs]) + pooled
    covariance = share * sum((x - a) * (y - b) for x, y in pairs) / own
    low, high = _fieller(a, b, scale * var_a, scale * var_b, scale * covariance)
    return Ratio(b / a, low, high, n, confidence)


def _fieller(
    a: float, b: float, var_a: float, var_b: float, covariance: float
) -> tuple[float, float | None]:
    """Fieller's interval: all ratios x for which (b - x a)^2 is at most t^2 times its variance.

    a, b: the means. var_a, var_b, covariance: of the means, each times t^2. The upper end
    is None where ``a`` may be 0.
    """
    square, half, rest = a * a - var_a, a * b - covariance, b * b - var_b
    root = math.sqrt(max(0.0, half * half - square * rest))
    if square > 0:
        return max(0.0, (half - root) / square), (half + root) / square
    if rest <= 0:
        return 0.0, None
    return max(0.0, (half - root) / square), None
