"""Whether an engine with a new setting keeps an SLO as well as the others do. Pure.

Both sides are watched over the same seconds. For each limit the shares of requests in time are
compared by bounds of 95 % confidence. Where buckets fix a share only within a range, the end that
speaks for the canary counts. So "worse" is sure, and "not worse" means that no harm was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

from llmtop.engines.core.latencies import LatencyHistogram, bucket_bounds
from llmtop.engines.core.samples import BucketHistogram
from llmtop.loadgen.statistics.wilson import CONFIDENCE, bounds
from llmtop.wording import format as f

FEWEST = 20  # requests on either side
EARLY = 0.999  # confidence of a verdict before the end of the watch


class Verdict(StrEnum):
    """What a watch has shown."""

    NOT_WORSE = "not worse"
    WORSE = "worse"
    UNDECIDED = "undecided"


class Counts(Struct, frozen=True):
    """Requests, and how many of them were in time: surely, and perhaps."""

    total: float = 0.0
    surely: float = 0.0
    perhaps: float = 0.0

    def minus(self, earlier: Counts) -> Counts:
        """Those since an earlier moment; none where the counts went back (a restart)."""
        if self.total < earlier.total or self.surely < earlier.surely:
            return Counts()
        return Counts(
            self.total - earlier.total,
            self.surely - earlier.surely,
            max(self.perhaps - earlier.perhaps, self.surely - earlier.surely),
        )


class Judgement(Struct, frozen=True):
    """A verdict and its reason in words. limits: for each limit both sides, in words."""

    verdict: Verdict
    words: str
    limits: Mapping[str, str]


def exact_counts(histogram: LatencyHistogram, limit_s: float) -> Counts:
    """How many were within a limit, from an exact histogram."""
    surely = perhaps = 0
    for index, count in histogram.buckets.items():
        low, high = bucket_bounds(index)
        surely += count if high <= limit_s else 0
        perhaps += count if low <= limit_s else 0
    return Counts(histogram.count, surely, perhaps)


def bucket_counts(histogram: BucketHistogram, limit_s: float) -> Counts:
    """The same from the engine's own wide buckets."""
    surely, total = 0.0, histogram.counts[-1] if histogram.counts else 0.0
    perhaps = total
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        if bound <= limit_s:
            surely = count
        if bound >= limit_s:
            perhaps = count
            break
    return Counts(total, surely, perhaps)


def total(parts: Iterable[Counts]) -> Counts:
    """Several engines together."""
    found = list(parts)
    return Counts(
        sum(one.total for one in found),
        sum(one.surely for one in found),
        sum(one.perhaps for one in found),
    )


def judge(
    canary: Mapping[str, Counts], others: Mapping[str, Counts], confidence: float = CONFIDENCE
) -> Judgement:
    """Compare both sides for each limit. The mappings have the same names.

    confidence: of each bound. One who looks again and again takes a higher one (EARLY).
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
        highest = bounds(counts.perhaps, counts.total, confidence)[1]
        lowest = bounds(other.surely, other.total, confidence)[0]
        if highest < lowest:
            return Judgement(Verdict.WORSE, f"fewer requests keep {name}: {limits[name]}", limits)
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
    low, high = f.percent(counts.surely / counts.total), f.percent(counts.perhaps / counts.total)
    return f"{low if low == high else f'{low}-{high}'} in time (n={counts.total:.0f})"


def batches(names: list[str], first: int) -> list[list[str]]:
    """The engines after the canaries, in batches that double: 1, 2, 4 times the first."""
    found = []
    size, rest = max(1, first), list(names)
    while rest:
        found.append(rest[:size])
        rest = rest[size:]
        size *= 2
    return found
