"""Tests whether B is better than A: paired runs in turn, confidence intervals on log ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import fmean, stdev

from msgspec import Struct

from llmtop.loadgen.core import measures
from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.statistics.student import t_quantile

CONFIDENCE = 0.95  # of all intervals of a comparison together
MOST_PAIRS = 100  # more pairs are not recommended


class Direction(StrEnum):
    """Whether higher or lower values of a measure are better."""

    HIGHER = "higher"
    LOWER = "lower"


class Verdict(StrEnum):
    """The verdict on B against A."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


class Measure(StrEnum):
    """The compared metrics; each run gives one value of each."""

    OUTPUT_TOKENS = "output_tokens_per_s"
    TTFT_P50 = "ttft_p50_s"
    TTFT_P95 = "ttft_p95_s"
    TPOT_P50 = "tpot_p50_s"

    @property
    def direction(self) -> Direction:
        """Whether higher or lower is better."""
        return Direction.HIGHER if self is Measure.OUTPUT_TOKENS else Direction.LOWER

    @property
    def judged(self) -> tuple[measures.Measure, str]:
        """The measure and the quantile whose verdict decides whether a run's value counts."""
        return {
            Measure.OUTPUT_TOKENS: (measures.Measure.THROUGHPUT, ""),
            Measure.TTFT_P50: (measures.Measure.TTFT, "p50"),
            Measure.TTFT_P95: (measures.Measure.TTFT, "p95"),
            Measure.TPOT_P50: (measures.Measure.TPOT, "p50"),
        }[self]

    def of(self, run: LevelResult) -> float | None:
        """One run's value; None if there is none or it is not positive."""
        value = {
            Measure.OUTPUT_TOKENS: run.output_tokens_per_s,
            Measure.TTFT_P50: run.ttft.p50,
            Measure.TTFT_P95: run.ttft.p95,
            Measure.TPOT_P50: run.tpot.p50,
        }[self]
        return value if value is not None and value > 0 else None


class PairedRatio(Struct, frozen=True):
    """One metric of B over A. ratio, low, high: B / A and its interval; 1 means equal.

    a, b: geometric means over the pairs. more_pairs: estimated further pairs to confirm the
    observed difference; None: confirmed, or too many. noise: the ratio (at least 1) between two
    runs of A; None: not measured. left_out: pairs that do not count for this metric, because the
    client may have distorted it.
    """

    measure: Measure
    n: int
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    more_pairs: int | None = None
    noise: float | None = None
    left_out: int = 0


def order(pairs: int) -> tuple[tuple[str, str], ...]:
    """ABBA repeatedly: a linear drift cancels over every two pairs."""
    return tuple(("A", "B") if i % 2 == 0 else ("B", "A") for i in range(pairs))


def judge(
    measure: Measure,
    pairs: Sequence[tuple[float, float]],
    *,
    confidence: float = CONFIDENCE,
    among: int = 1,
    noise: float | None = None,
) -> PairedRatio:
    """A paired t interval on the logarithms of B / A, from (A, B) of each pair.

    among: the number of metrics judged together. The error is divided between them (Bonferroni), so
    that all intervals hold at once: four metrics give no more false findings than one.
    """
    n = len(pairs)
    logs = [math.log(b / a) for a, b in pairs]
    if n == 0:
        return PairedRatio(
            measure, 0, None, None, None, None, None, Verdict.CANNOT_TELL, None, noise
        )
    a, b = (math.exp(fmean(math.log(pair[i]) for pair in pairs)) for i in (0, 1))
    middle = fmean(logs)
    if n < 2:
        return PairedRatio(
            measure, n, a, b, math.exp(middle), None, None, Verdict.CANNOT_TELL, None, noise
        )
    probability = 1 - (1 - confidence) / among / 2
    spread = stdev(logs)
    reach = t_quantile(probability, n - 1) * spread / math.sqrt(n)
    low, high = middle - reach, middle + reach
    verdict, more = Verdict.CANNOT_TELL, None
    if low > 0 or high < 0:
        rose = low > 0
        verdict = (
            Verdict.BETTER if rose == (measure.direction is Direction.HIGHER) else Verdict.WORSE
        )
    else:
        more = _more(middle, spread, n, probability)
    return PairedRatio(
        measure, n, a, b, math.exp(middle), math.exp(low), math.exp(high), verdict, more, noise
    )


def noise_floor(pairs: Sequence[tuple[float, float]]) -> float | None:
    """The difference of two runs of the same setting: the root mean square of log ratios, as a
    ratio of at least 1. None without pairs."""
    if not pairs:
        return None
    return math.exp(math.sqrt(fmean(math.log(b / a) ** 2 for a, b in pairs)))


def _more(middle: float, spread: float, n: int, probability: float) -> int | None:
    """Further pairs until the interval would exclude 1, if the difference stays the same."""
    for total in range(n + 1, n + MOST_PAIRS + 1):
        if t_quantile(probability, total - 1) * spread / math.sqrt(total) < abs(middle):
            more = total - n
            return more + more % 2  # whole ABBA blocks
    return None
