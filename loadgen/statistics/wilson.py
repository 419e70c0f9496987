"""Whether a share of requests was reached, decided from a sample: yes, no, or not yet."""

from __future__ import annotations

import math
from enum import StrEnum

from llmtop.loadgen.statistics.student import normal_quantile

CONFIDENCE = 0.95  # of each single claim ("it holds", "it fails"): one-sided


class ShareVerdict(StrEnum):
    """Whether a level holds the limits for a share of its requests."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"  # too few requests to say


def bounds(met: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """One-sided lower and upper bound of a share of which ``met`` of ``n`` were seen.

    Wilson's score interval (JASA 22, 1927): right for shares near 1, where the textbook interval
    has no width at all. (0, 1) when nothing was seen.
    """
    if n <= 0:
        return 0.0, 1.0
    z = normal_quantile(confidence)
    share = met / n
    middle = share + z * z / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def judge(met: float, n: float, share: float, confidence: float = CONFIDENCE) -> ShareVerdict:
    """Whether at least ``share`` of all requests meet their limits, given ``met`` of ``n``."""
    low, high = bounds(met, n, confidence)
    if low >= share:
        return ShareVerdict.PASS
    return ShareVerdict.FAIL if high < share else ShareVerdict.UNDECIDED
