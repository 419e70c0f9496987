"""Isotonic regression: the non-decreasing curve nearest to noisy measurements."""

from __future__ import annotations

from collections.abc import Sequence


def rising(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """The non-decreasing sequence with the least weighted squared distance to ``values``.

    Pool adjacent violators (Ayer et al., Ann. Math. Stat. 26, 1955): neighbours in the wrong order
    are replaced by their weighted mean until none are left. Weights are above 0.
    """
    given = [1.0] * len(values) if weights is None else weights
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many values
    for value, weight in zip(values, given, strict=True):
        mean, heavy, count = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, its_weight, its_count = blocks.pop()
            mean = (before * its_weight + mean * heavy) / (its_weight + heavy)
            heavy += its_weight
            count += its_count
        blocks.append((mean, heavy, count))
    return [mean for mean, _, count in blocks for _ in range(count)]


def falling(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """The same for a non-increasing curve."""
    return [-value for value in rising([-value for value in values], weights)]
