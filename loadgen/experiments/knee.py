"""The knee of the throughput curve: from here on more streams do not give more tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from llmtop.loadgen.experiments.isotonic import rising

SHARE = 0.90  # of the best throughput: of the compared estimators the least grid-dependent
COLLAPSE = 0.80  # of the best throughput: a higher level with less has collapsed
LEVEL_OFF = 0.95  # of the best throughput: a higher level with less is below the plateau
STILL_RISING = 1.10  # a doubling that gives more has not reached the best throughput
MIN_ERROR = 0.005  # smallest relative error of a level, even if its throughput was constant
NEIGHBOUR = 1.125  # levels nearer than this show nothing about the slope between them
SIGMAS = 2.0


class Point(Struct, frozen=True):
    """One level's throughput, tokens a second. error: its relative standard error, if known."""

    level: int
    throughput: float
    error: float | None = None


class Knee(Struct, frozen=True):
    """Where the best throughput begins.

    level: the first tested level with 90 % of the best. low: the highest tested level that
    certainly gives less (0: none). high: the lowest that certainly gives as much, or None. best:
    the best throughput after smoothing, tokens a second; best_level: its level. open_end: the
    highest tested level gave the most, so the best may be higher. cliff: the level at which
    throughput collapses, or None; cliff_share: its share of the best.
    """

    level: int
    low: int
    high: int | None
    best: float
    best_level: int
    open_end: bool = False
    cliff: int | None = None
    cliff_share: float | None = None


def find(points: Sequence[Point]) -> Knee | None:
    """The knee of a curve; None when nothing was measured."""
    ordered = sorted((p for p in points if p.throughput > 0), key=lambda p: p.level)
    if not ordered:
        return None
    top = max(ordered, key=lambda p: p.throughput)
    fallen = [
        p for p in ordered if p.level > top.level and p.throughput < COLLAPSE * top.throughput
    ]
    # Smoothing is for noise. It must not average a real decline into the best throughput.
    kept = list(ordered)
    while kept[-1].level > top.level and kept[-1].throughput < LEVEL_OFF * top.throughput:
        kept.pop()
    errors = [max(MIN_ERROR, MIN_ERROR if p.error is None else p.error) for p in kept]
    weights = [1 / (error * p.throughput) ** 2 for error, p in zip(errors, kept, strict=True)]
    smooth = rising([p.throughput for p in kept], weights)
    best = smooth[-1]
    goal = SHARE * best
    first = next(i for i, value in enumerate(smooth) if value >= goal)
    plateau = [i for i, value in enumerate(smooth) if value >= LEVEL_OFF * best]
    best_error = math.hypot(*(errors[i] for i in plateau)) / len(plateau)

    def reach(i: int) -> float:
        return SIGMAS * math.hypot(errors[i], best_error)

    below = [p.level for i, p in enumerate(kept) if i < first and smooth[i] * (1 + reach(i)) < goal]
    above = [
        p.level for i, p in enumerate(kept) if i >= first and smooth[i] * (1 - reach(i)) >= goal
    ]
    return Knee(
        level=kept[first].level,
        low=max(below, default=0),
        high=min(above, default=None),
        best=best,
        best_level=kept[next(i for i, value in enumerate(smooth) if value == best)].level,
        open_end=len(kept) == len(ordered) and _still_rising(kept, smooth),
        cliff=fallen[0].level if fallen else None,
        cliff_share=fallen[0].throughput / top.throughput if fallen else None,
    )


def _still_rising(points: Sequence[Point], smooth: Sequence[float]) -> bool:
    """Whether, at the slope of its end, twice the streams would give a tenth more tokens."""
    last = points[-1].level
    lower = [i for i, p in enumerate(points) if NEIGHBOUR * p.level <= last]
    if not lower:
        return True
    i = lower[-1]
    doublings = math.log2(last / points[i].level)
    return smooth[-1] / smooth[i] > math.pow(STILL_RISING, doublings)
