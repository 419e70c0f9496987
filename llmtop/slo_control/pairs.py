"""What rounds say of two settings: the ratio of their goodput, with an interval.

Settings that were measured in one round met the same arrivals, so they are compared by pairs. The
ratio is that of the means, by Fieller's theorem: a mean counts a run that served hardly anything as
what it cost, and a ratio of logarithms would not. Three pairs show little of how much runs differ,
so the spread of all settings that are still in the search counts as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance

from msgspec import Struct

from llmtop.loadgen.statistics.student import t_quantile

CONFIDENCE = 0.90
"""Of the interval. So each end is a one-sided limit of 95 %, as in an equivalence test."""
SMOOTH_PER_S = 0.5  # added to both sides: a goodput of 0 has no ratio

Round = Mapping[int, float]
"""Goodput by candidate."""


class Ratio(Struct, frozen=True):
    """One setting over another; None where no limit is known. high is None, too, where the other
    may serve nothing. confidence: of the interval."""

    value: float
    low: float | None
    high: float | None
    pairs: int
    confidence: float = CONFIDENCE


class Spread(Struct, frozen=True):
    """The variance of a run around its settings and its round. freedom: degrees of freedom."""

    variance: float
    freedom: int


def spread(rounds: Sequence[Round], members: Sequence[int]) -> Spread:
    """Of the rounds that measured all members: what their settings and their round leave over."""
    whole = [one for one in rounds if all(i in one for i in members)]
    if len(whole) < 2 or len(members) < 2:
        return Spread(0.0, 0)
    middle = {i: fmean(one[i] for one in whole) for i in members}
    every = fmean(middle.values())
    left = 0.0
    for one in whole:
        shift = fmean(one[i] for i in members) - every
        left += sum((one[i] - middle[i] - shift) ** 2 for i in members)
    freedom = (len(whole) - 1) * (len(members) - 1)
    return Spread(left / freedom, freedom)


def ratio(
    rounds: Sequence[Round],
    index: int,
    other: int,
    common: Spread | None = None,
    confidence: float = CONFIDENCE,
) -> Ratio:
    """``index`` over ``other``, by the rounds in which both were measured. common: of all settings;
    it counts as much as the pairs themselves."""
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
    rest = (1 - share) * common.variance if common is not None else 0.0
    reach = t_quantile(1 - (1 - confidence) / 2, own + more) ** 2 / n
    var_a = share * variance([first for first, _ in pairs]) + rest
    var_b = share * variance([second for _, second in pairs]) + rest
    both = share * sum((x - a) * (y - b) for x, y in pairs) / own
    return Ratio(b / a, *_fieller(a, b, reach * var_a, reach * var_b, reach * both), n, confidence)


def _fieller(
    a: float, b: float, var_a: float, var_b: float, both: float
) -> tuple[float, float | None]:
    """The ratios x of means for which (b - x a)^2 is at most its variance times the reach."""
    square, half, rest = a * a - var_a, a * b - both, b * b - var_b
    root = math.sqrt(max(0.0, half * half - square * rest))
    if square > 0:
        return max(0.0, (half - root) / square), (half + root) / square
    if rest <= 0:
        return 0.0, None
    return max(0.0, (half - root) / square), None  # ``a`` may be nothing
