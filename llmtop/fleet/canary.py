"""Judges whether an engine with a new setting (a canary) meets an SLO as well as the others. Pure.

Both sides are observed at the same time. For each limit, the shares of requests in time are
compared by one-sided confidence bounds (95 %, Wilson). If buckets give only a range of a share, the
end that favours the canary is used. So "worse" is statistically significant, and "not worse" means
that no harm was observed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from llmtop.engines.core.latencies import LatencyHistogram, bucket_bounds
from llmtop.engines.core.samples import BucketHistogram
from llmtop.loadgen.statistics.wilson import CONFIDENCE, bounds
from llmtop.wording import format as f

FEWEST = 20  # requests on each side
EARLY = 0.999  # confidence of a verdict before the end: it is computed many times


class Verdict(StrEnum):
    """The result of comparing a canary with the other engines."""

    NOT_WORSE = "not worse"
    WORSE = "worse"
    UNDECIDED = "undecided"


class Counts(Struct, frozen=True):
    """Numbers of requests: all, and the lower and upper bound of those in time."""

    total: float = 0.0
    at_least: float = 0.0
    at_most: float = 0.0

    def minus(self, earlier: Counts) -> Counts:
        """The requests since ``earlier``; zeros if the counts went back, as after a restart."""
        if self.total < earlier.total or self.at_least < earlier.at_least:
            return Counts()
        return Counts(
            self.total - earlier.total,
            self.at_least - earlier.at_least,
            max(self.at_most - earlier.at_most, self.at_least - earlier.at_least),
        )


class Judgement(Struct, frozen=True):
    """A verdict and its reason as text. limits: both sides of each limit, as text."""

    verdict: Verdict
    words: str
    limits: Mapping[str, str]


def exact_counts(histogram: LatencyHistogram, limit_s: float) -> Counts:
    """The requests within a limit, from a histogram with fine buckets."""
    at_least = at_most = 0
    for index, count in histogram.buckets.items():
        low, high = bucket_bounds(index)
        at_least += count if high <= limit_s else 0
        at_most += count if low <= limit_s else 0
    return Counts(histogram.count, at_least, at_most)


def bucket_counts(histogram: BucketHistogram, limit_s: float) -> Counts:
    """The requests within a limit, from the wide buckets of an engine's metrics page."""
    at_least, total = 0.0, histogram.counts[-1] if histogram.counts else 0.0
    at_most = total
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        if bound <= limit_s:
            at_least = count
        if bound >= limit_s:
            at_most = count
            break
    return Counts(total, at_least, at_most)


def total(parts: Iterable[Counts]) -> Counts:
    """The sum over several engines."""
    found = list(parts)
    return Counts(
        sum(one.total for one in found),
        sum(one.at_least for one in found),
        sum(one.at_most for one in found),
    )


def judge(
    canary: Mapping[str, Counts], others: Mapping[str, Counts], confidence: float = CONFIDENCE
) -> Judgement:
    """Compare both sides for each limit. Both mappings have the same names of limits.

    confidence: of each bound. Repeated comparisons need a higher one (EARLY).
    """
    limits = {name: _sides(canary[name], others[name]) for name in canary}
    few = [
        f"{side} {counts[name].total:.0f} ({name})"
        for side, counts in (("canary", canary), ("others", others))
        for name in counts
        if counts[name].total < FEWEST
    ]
    for name, counts in canary.items():
        other = others[name]
        if min(counts.total, other.total) < FEWEST:
            continue
        highest = bounds(counts.at_most, counts.total, confidence)[1]
        lowest = bounds(other.at_least, other.total, confidence)[0]
        if highest < lowest:
            words = f"fewer requests meet the limit of {name}: {limits[name]}"
            return Judgement(Verdict.WORSE, words, limits)
    if few:
        words = f"too few requests to judge, {FEWEST} are needed: {', '.join(few)}"
        return Judgement(Verdict.UNDECIDED, words, limits)
    words = "; ".join(f"{name}: {text}" for name, text in limits.items())
    return Judgement(Verdict.NOT_WORSE, words, limits)


def _sides(canary: Counts, others: Counts) -> str:
    return f"canary {_share(canary)}, others {_share(others)}"


def _share(counts: Counts) -> str:
    if not counts.total:
        return f"{f.ABSENT} (n=0)"
    low, high = f.percent(counts.at_least / counts.total), f.percent(counts.at_most / counts.total)
    return f"{low if low == high else f'{low}-{high}'} in time (n={counts.total:.0f})"


def batches(names: list[str], first: int) -> list[list[str]]:
    """The engines after the canaries, in batches whose size doubles. first: size of the first."""
    found = []
    size, rest = max(1, first), list(names)
    while rest:
        found.append(rest[:size])
        rest = rest[size:]
        size *= 2
    return found
