"""Quantiles by nearest rank, as llmtop reports exact values."""

from __future__ import annotations

import math
from collections.abc import Sequence


def nearest_rank(values: Sequence[float], share: float) -> float:
    """The smallest value with that share of all at or below it. ValueError without values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]
