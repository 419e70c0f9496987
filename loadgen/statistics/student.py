"""Student's t and the normal distribution, as far as intervals need them. No numpy, no scipy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300
_STEPS = 300  # the continued fraction settles in a few dozen
_EPSILON = 1e-15


def normal_quantile(probability: float) -> float:
    """z with P(Z <= z) = probability, 0 < probability < 1 (the standard library's, AS 241)."""
    return NormalDist().inv_cdf(probability)


def t_probability(t: float, freedom: float) -> float:
    """P(T <= t) with that many degrees of freedom.

    Through the regularised incomplete beta function: with x = freedom / (freedom + t^2),
    P(|T| > t) = I_x(freedom / 2, 1 / 2) (NIST DLMF 8.17; Abramowitz and Stegun 26.7.1).
    """
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return 1 - tail if t >= 0 else tail


@lru_cache(maxsize=1024)
def t_quantile(probability: float, freedom: float) -> float:
    """t with P(T <= t) = probability, 0 < probability < 1, freedom > 0; by bisection."""
    if not (0 < probability < 1 and freedom > 0):
        raise ValueError(f"no t for probability {probability} and {freedom} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < probability and high < 1e12:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if t_probability(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    # The fraction converges fast on one side of the mean; the other side is the mirror image.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction DLMF 8.17.22, evaluated by Lentz's method as Thompson and Barnett
    modified it (J. Comput. Phys. 64, 1986)."""
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > _TINY else _TINY)
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 + term * d
            d = 1 / (d if abs(d) > _TINY else _TINY)
            c = 1 + term / c
            c = c if abs(c) > _TINY else _TINY
            value *= c * d
        if abs(c * d - 1) < _EPSILON:
            break
    return value
